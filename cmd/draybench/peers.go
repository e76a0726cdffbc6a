package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Names of the compared servers, in the order of the columns.
const (
	direct       = "direct"
	dray         = "dray"
	nginx        = "nginx"
	distribution = "distribution"
)

// peer is a server that the benchmark measures. The peer direct has no program: its clients use the
// [origin] itself, the registry behind the other peers.
type peer struct {
	name string
	path string // path of the program
	env  []string
	// launch writes a configuration, and returns the arguments of each process. A server that cannot
	// have two listeners runs as two processes.
	launch func(s site) ([][]string, error)
}

// site is the environment of a server: its own directory, two free addresses, a certificate,
// and the origin.
type site struct {
	dir, plain, secure, origin string
	certificate, key           string
}

// running is a started server, with all of its processes.
type running struct {
	site
	peer      string
	processes []*process
}

// start runs a peer with an empty cache. The direct peer is the origin itself.
func (b *bench) start(ctx context.Context, p peer, o *origin) (*running, error) {
	if p.name == direct {
		return &running{peer: p.name, site: site{plain: o.address}}, nil
	}
	dir, err := os.MkdirTemp(b.dir, p.name)
	if err != nil {
		return nil, err
	}
	ports, err := freeAddresses(2)
	if err != nil {
		return nil, err
	}
	r := &running{peer: p.name, site: site{dir, ports[0], ports[1], o.address, b.certificate, b.key}}
	if err := r.launch(ctx, p); err != nil {
		r.stop()
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	return r, nil
}

// launch starts the processes of r, and waits until both addresses accept connections. If it fails,
// some of the processes may be running.
func (r *running) launch(ctx context.Context, p peer) error {
	lines, err := p.launch(r.site)
	if err != nil {
		return err
	}
	for _, line := range lines {
		started, err := startProcess(r.dir, append([]string{"OTEL_TRACES_EXPORTER=none"}, p.env...), p.path, line...)
		if err != nil {
			return err
		}
		r.processes = append(r.processes, started)
	}
	for i, address := range []string{r.plain, r.secure} {
		if err := r.processes[min(i, len(r.processes)-1)].ready(ctx, address); err != nil { // with two processes, each has one of the listeners
			return err
		}
	}
	return pause(ctx, time.Now().Add(100*time.Millisecond)) // so that the server has finished its start before it is measured
}

func (r *running) stop() {
	for _, p := range r.processes {
		p.stop()
	}
	if r.dir != "" {
		_ = os.RemoveAll(r.dir) // if this fails, [options.measure] still removes the parent directory
	}
}

func (r *running) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, p := range r.processes {
		d, err := p.cpu()
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// peak returns the peak memory, in bytes, of the first process, which serves plain HTTP.
func (r *running) peak() (int64, error) {
	if len(r.processes) == 0 {
		return 0, nil
	}
	return r.processes[0].peak()
}

// freeAddresses returns addresses that are not in use.
func freeAddresses(n int) (addresses []string, err error) {
	for range n {
		l, listenErr := net.Listen("tcp", "127.0.0.1:0")
		if listenErr != nil {
			return nil, listenErr
		}
		defer func() { err = errors.Join(err, l.Close()) }()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// write writes a configuration into the site's directory, with values in place of its {names}. It
// returns the path of the file.
func (s site) write(name, text string) (string, error) {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // without this line, nginx's workers could not enter the directory
	}
	text = strings.NewReplacer("{dir}", s.dir, "{plain}", s.plain, "{secure}", s.secure, "{origin}", s.origin,
		"{certificate}", s.certificate, "{key}", s.key, "{user}", user, "{cpus}", strconv.Itoa(cpus())).Replace(text)
	path := filepath.Join(s.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

func drayPeer(path string) peer { return drayWith(path, drayConfig) }

// drayWith returns the peer dray with the given configuration. The configuration may refer to the
// password file {dir}/users. The only user in this file is "bench", with the password "bench".
func drayWith(path, config string) peer {
	return peer{name: dray, path: path, launch: func(s site) ([][]string, error) {
		_, err1 := s.write("users", "bench:$2a$04$0Rkoa1kaD3YQSYc34mcMOeJ4EKc/J9ir44qbe1qbxlv3s4ZskCvGq\n")
		config, err2 := s.write("dray.yaml", config)
		return [][]string{{"serve", "--config", config}}, errors.Join(err1, err2)
	}}
}

// edited returns a copy of the given configuration in which the given text replaces the given part.
// It panics if the configuration does not have the part, because dray would then be measured in the
// wrong way.
func edited(config, part, text string) string {
	before, after, ok := strings.Cut(config, part)
	if !ok {
		panic("the configuration does not have the part " + part)
	}
	return before + text + after
}

const drayConfig = `
listeners:
  - {name: plain, address: "{plain}", role: mirror, upstreams: [origin]}
  - {name: secure, address: "{secure}", role: mirror, upstreams: [origin], tls: {certificate: "{certificate}", private_key: "{key}"}}
upstreams:
  - {name: origin, kind: oci, url: "http://{origin}"}
cache: {directory: "{dir}/cache"}
admin: {address: "off"}
log: {level: error, access: false}
`

func distributionPeer(path string) peer {
	return peer{name: distribution, path: path, launch: func(s site) ([][]string, error) {
		plain, err1 := s.write("plain.yaml", strings.ReplaceAll(distributionConfig, "{http}", `{addr: "{plain}"}`))
		secure, err2 := s.write("secure.yaml", strings.ReplaceAll(distributionConfig, "{http}",
			`{addr: "{secure}", tls: {certificate: "{certificate}", key: "{key}"}}`))
		return [][]string{{"serve", plain}, {"serve", secure}}, errors.Join(err1, err2)
	}}
}

const distributionConfig = `
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: "{dir}/cache"}
  cache: {blobdescriptor: inmemory}
http: {http}
proxy: {remoteurl: "http://{origin}"}
`

func nginxPeer(path string) peer {
	return peer{name: nginx, path: path, launch: func(s site) ([][]string, error) {
		config, err := s.write("nginx.conf", nginxConfig)
		return [][]string{{"-p", s.dir, "-c", config, "-e", filepath.Join(s.dir, "error.log")}}, err
	}}
}

// nginxConfig has the usual settings of registry caches: one fetch at a time for a missing path,
// blobs stay, and tags stay for a minute. tcp_nopush is off because it delays small answers on a
// loopback interface.
const nginxConfig = `
daemon off;
{user}
worker_processes {cpus};
worker_rlimit_nofile 8192;
pid {dir}/nginx.pid;
error_log {dir}/error.log error;
events { worker_connections 4096; }
http {
  access_log off;
  sendfile on;
  tcp_nopush off;
  keepalive_requests 100000000;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/temp;
  fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  proxy_cache_path {dir}/cache levels=1:2 keys_zone=registry:64m inactive=1d max_size=100g use_temp_path=off;
  upstream origin { server {origin}; keepalive 64; }
  server {
    listen {plain};
    listen {secure} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Range "";
    proxy_cache registry;
    proxy_cache_key $uri;
    proxy_cache_lock on;
    proxy_cache_lock_timeout 880s;
    location / { proxy_pass http://origin; proxy_cache_valid 200 60d; }
    location ~ ^/v2/.*/manifests/[^:]*$ { proxy_pass http://origin; proxy_cache_valid 200 60s; }
  }
}
`
