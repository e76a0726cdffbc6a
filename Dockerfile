# dray, built from source: docker build -t dray --build-arg VERSION=$(git describe --tags --always) .
#
# The last stage is also what `make dockerBuild` uses: it fills ./image on the host instead of in the first stage, so that
# building an image needs no base image, hence no network. Whatever the image contains is therefore said here, once.
ARG GO=docker.io/library/golang:1.26-bookworm
FROM ${GO} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /image/bin/dray ./cmd/dray \
 && install -D -m 0644 -t /image/etc/ssl/certs /etc/ssl/certs/ca-certificates.crt \
 && install -d -m 1777 /image/cache /image/tmp
WORKDIR /

FROM scratch
COPY --from=build /image /
# Without a certificate dray listens on the loopback interface, which in a container nobody reaches: give TLS_CERTIFICATE and TLS_PRIVATE_KEY, or
# -e DRAY_ADDRESS=:5000. It is not set here, because it would go before the address in a configuration file.
#
# The cache lies in a volume. Its directory is like /tmp, open to whichever user the container is started as.
ENV DRAY_CACHE_DIRECTORY=/cache HOME=/ PATH=/bin
VOLUME /cache
USER 65532:65532
EXPOSE 5000 6060
ENTRYPOINT ["/bin/dray"]
CMD ["serve"]
