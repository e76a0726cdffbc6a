# dray, built from source: docker build -t dray --build-arg VERSION=$(git describe --tags --always) .
#
# `make dockerBuild` uses only the last stage. It fills ./image on the host instead of in the first stage,
# so it needs neither a base image nor a network. Both ways build the same image.
ARG GO=docker.io/library/golang:1.26-bookworm
FROM ${GO} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
RUN CGO_ENABLED=0 go build -tags grpcnotrace -trimpath -buildvcs=false -ldflags "-s -w -X dray/cmd/dray/program.version=${VERSION}" -o /image/bin/dray ./cmd/dray \
 && install -D -m 0644 -t /image/etc/ssl/certs /etc/ssl/certs/ca-certificates.crt \
 && install -d -m 1777 /image/cache /image/tmp
WORKDIR /

FROM scratch
COPY --from=build /image /
# Without a certificate dray listens on the loopback interface, which clients outside the container cannot
# reach. Set TLS_CERTIFICATE and TLS_PRIVATE_KEY, or DRAY_ADDRESS=:5000. DRAY_ADDRESS is not set here,
# because it would override the address in a configuration file.
#
# The cache is a volume. Its directory is writable for every user, like /tmp, because the container can be
# started as any user.
ENV DRAY_CACHE_DIRECTORY=/cache HOME=/ PATH=/bin container=oci
VOLUME /cache
USER 65532:65532
EXPOSE 5000 6060
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["/bin/dray", "health"]
ENTRYPOINT ["/bin/dray"]
CMD ["serve"]
