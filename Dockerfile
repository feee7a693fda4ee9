# JupyterLab on the notebooks, with everything built:
#
#     docker build --tag loss-landscape .
#     docker run --rm --publish 127.0.0.1:8888:8888 loss-landscape
#
# Binder builds this file too, and gives NB_USER and NB_UID. environment/check_ready_made.sh checks it without Docker.
FROM rust:1.95-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential git python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN rustup component add rust-src

ARG NB_USER=jovyan
ARG NB_UID=1000
RUN useradd --create-home --shell /bin/bash --uid "$NB_UID" "$NB_USER"
ENV USER=$NB_USER HOME=/home/$NB_USER
WORKDIR $HOME/loss-landscape
RUN chown "$NB_USER" .
USER $NB_USER

COPY --chown=$NB_USER . .
# A changed crate needs the compiled dependencies, but not what the kernel was linked from.
RUN environment/setup.sh && rm -rf "$HOME/.cache/loss-landscape/evaluator-target" "$HOME/.cache/pip"

ENV PATH=$HOME/loss-landscape/.venv/bin:$PATH
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "--notebook-dir=notebooks"]
