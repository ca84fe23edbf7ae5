// Sphinx's search fetches each page that it found, for an excerpt. From a file no browser may fetch; the text of all
// pages stands in EXCERPTS (excerpts.js), and is taken from there.
const fetchFromServer = window.fetch;
window.fetch = (address, ...rest) => {
  const text = EXCERPTS[String(address).replace(/^\.\//, "")];
  return text === undefined ? fetchFromServer(address, ...rest) : Promise.resolve(new Response(text));
};
