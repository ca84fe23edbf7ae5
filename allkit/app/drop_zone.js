// A place for images: dropped, pasted, or chosen by click, key or camera. Every file goes to the kernel as a message of
// its own, so that no state of the widget, which a notebook might save, ever holds one.

const WORDS = "Drop images of cells here, paste them, or press to choose";

function send(model, files) {
  const [maxBytes, maxFiles, upload] = [model.get("max_bytes"), model.get("max_files"), Date.now()];
  const [all, of] = [[...files], Math.min(files.length, maxFiles)];
  all.slice(0, of).forEach(async (file, number) => {
    const words = { kind: "file", upload, number, of, left: all.length - of, size: file.size };
    // one that is too large, or a folder, is named only: the kernel says why it is left out
    const content = file.size <= maxBytes ? await file.arrayBuffer().catch(() => null) : null;
    model.send({ ...words, name: file.name || "pasted image" }, undefined, content ? [content] : []);
  });
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function example(model, { name, picture }, number) {
  const image = element("img", { src: picture, alt: "" });
  const button = element("button", { type: "button", className: "ak-example" }, image, element("span", {}, name));
  button.onclick = () => model.send({ kind: "example", number });
  return button;
}

function writes(target) {
  return target.closest?.("input, textarea, [contenteditable=true], .cm-editor");
}

function render({ model, el }) {
  const input = element("input", { type: "file", multiple: true, accept: model.get("accept"), hidden: true });
  const count = element("span", { className: "ak-count" });
  count.setAttribute("role", "status");
  const zone = element("button", { type: "button", className: "ak-drop" }, element("span", {}, WORDS), count);
  zone.onclick = () => input.click();
  input.onchange = () => {
    send(model, input.files);
    input.value = ""; // the same file can be chosen again
  };

  const tell = () => {
    const images = model.get("count");
    count.textContent = images ? `${images} image${images > 1 ? "s" : ""} here` : model.get("formats");
  };
  model.on("change:count", tell);
  tell();

  // On a page of its own a file may be dropped anywhere; beside other cells only here
  const place = document.body.dataset.voila ? document.body : el;
  const stop = new AbortController();
  const listen = (where, what, act) => where.addEventListener(what, act, { signal: stop.signal });
  listen(place, "dragover", (event) => {
    event.preventDefault();
    zone.classList.add("ak-over");
  });
  listen(place, "dragleave", (event) => {
    if (!place.contains(event.relatedTarget)) zone.classList.remove("ak-over");
  });
  listen(place, "drop", (event) => {
    event.preventDefault();
    zone.classList.remove("ak-over");
    send(model, event.dataTransfer.files);
  });
  listen(document, "paste", (event) => {
    const files = event.clipboardData?.files ?? [];
    if (files.length && !writes(event.target)) send(model, files);
  });

  const examples = model.get("examples").map((shown, number) => example(model, shown, number));
  const strip = element("div", { className: "ak-examples" }, element("span", {}, "Or try one of these:"), ...examples);
  el.append(input, zone, strip);
  model.set("alive", true); // the plain upload button may go
  model.save_changes();
  return () => stop.abort();
}

export default { render };
