# docker build -t underfire .                                                            the demo, on PyTorch for the CPU
# docker run --rm -v "$PWD/runs:/work/runs" underfire
# docker run --rm -v "$PWD/runs:/work/runs" -v "$PWD/photos:/work/photos" underfire audit --model … --images photos/ …
FROM python:3.13-slim

RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir .

# whoever runs the container may write: --user "$(id -u):$(id -g)"
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["underfire"]
CMD ["demo"]
