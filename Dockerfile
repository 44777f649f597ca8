# Predict and serve, as a user without rights. See docs/serving.md.
FROM python:3.11-slim

WORKDIR /opt/classifier
COPY requirements.txt ./
RUN pip install --no-cache-dir --require-hashes -r requirements.txt
COPY pyproject.toml README.md ./
COPY pipeline ./pipeline
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

# /tmp is the only folder that may be written to.
ENV HOME=/tmp MPLCONFIGDIR=/tmp PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 5001
ENTRYPOINT ["pipeline"]
CMD ["serve", "serve.host=0.0.0.0"]
