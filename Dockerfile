# docker build -t allkit .
# The page:    docker run --rm --network host allkit       http://127.0.0.1:8866, see docs/anywhere.md for the reason
# JupyterLab:  docker run --rm -p 127.0.0.1:8888:8888 allkit allkit lab -- --ip=0.0.0.0 --no-browser
FROM python:3.12-slim
RUN useradd --create-home --uid 1000 student
USER student
WORKDIR /home/student/allkit
ENV PATH=/home/student/venv/bin:$PATH
COPY --chown=student . .
RUN python -m venv /home/student/venv \
    && pip install --no-cache-dir --constraint requirements.lock --editable .
# draws the synthetic cells and trains both networks on them, so that the page can answer
RUN allkit run --only 04,05
# made here, so that a volume that is mounted there belongs to the user
RUN allkit lab --no-start
CMD ["allkit", "app"]
