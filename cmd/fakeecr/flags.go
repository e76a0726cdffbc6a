package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"dray/upstream/ecrtest"
)

// flags is the command line.
type flags struct {
	addresses       ecrtest.Addresses
	account, region string
	dir             string
	hub, public     bool
	env             bool
	tls             bool
	certFile        string
	keyFile         string
	caFile          string
	readyFile       string
	hosts           list
	strictHost      bool
	port            int
	http2           bool
	objectsByName   bool
	mounting        bool
	createOnPush    list
	pullThrough     list
	quotas          bool
	switches        string
	more            list
	creationDelay   time.Duration
	seeds           seeds
	repositories    list
	hubUsers        list
	hubPushUser     bool
	hubPullLimit    int
	rate, rateTotal int64
	verbose         bool
}

// list is a repeatable flag.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

// seeds are the images of --seed, each written as NAME:TAG[=LAYERSxBYTES].
type seeds []ecrtest.SeedImage

func (s *seeds) String() string { return fmt.Sprint(len(*s)) }

func (s *seeds) Set(v string) error {
	name, size, sized := strings.Cut(v, "=")
	repo, tag, ok := strings.Cut(name, ":")
	if !ok || repo == "" || tag == "" {
		return errors.New("want NAME:TAG[=LAYERSxBYTES]")
	}
	img := ecrtest.SeedImage{Repository: repo, Tag: tag, Layers: 2, LayerBytes: 64 << 10}
	if sized {
		layers, each, _ := strings.Cut(size, "x")
		var err1, err2 error
		img.Layers, err1 = strconv.Atoi(layers)
		img.LayerBytes, err2 = strconv.ParseInt(each, 10, 64)
		if err1 != nil || err2 != nil || img.Layers < 1 || img.LayerBytes < 1 {
			return errors.New("want NAME:TAG[=LAYERSxBYTES]")
		}
	}
	*s = append(*s, img)
	return nil
}

// parseFlags returns the flags, and the command after them.
func parseFlags(args []string, stderr io.Writer) (*flags, []string, error) {
	f := &flags{}
	fs := flag.NewFlagSet("fakeecr", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprintln(stderr, "Usage: fakeecr [FLAG]... [COMMAND [ARGUMENT]...]\n\nWith a COMMAND, such as bin/dray serve, fakeecr runs it in front of the stand-in, and ends with it.\n\nFlags:")
		fs.PrintDefaults()
	}
	fs.StringVar(&f.addresses.Registry, "registry", "127.0.0.1:0", "`address` of the registry")
	fs.StringVar(&f.addresses.API, "api", "127.0.0.1:0", "`address` of the ECR and CloudWatch API")
	fs.StringVar(&f.addresses.Objects, "objects", "127.0.0.1:0", "`address` of the object store that blob redirects point to")
	fs.StringVar(&f.addresses.Control, "control", "127.0.0.1:0", "`address` of the control API")
	fs.StringVar(&f.account, "account", "", "account `id` (default 123456789012)")
	fs.StringVar(&f.region, "region", "", "AWS region (default eu-west-1)")
	fs.StringVar(&f.dir, "data", "", "`directory` for blobs (default: a temporary one)")
	fs.BoolVar(&f.hub, "hub", false, "be an anonymous registry in the style of Docker Hub")
	fs.BoolVar(&f.public, "public", false, "be a registry like ECR Public, public.ecr.aws")
	fs.BoolVar(&f.env, "env", false, "print what a shell has to export for a dray in front of it, instead of the line of JSON")
	fs.BoolVar(&f.tls, "tls", false, "serve the registry and the objects with a certificate made on the spot; see --ca-file")
	fs.StringVar(&f.certFile, "tls-cert", "", "serve the registry with this certificate `file` (PEM)")
	fs.StringVar(&f.keyFile, "tls-key", "", "key `file` of --tls-cert (PEM)")
	fs.StringVar(&f.caFile, "ca-file", "", "write the authority of --tls to this `file` (PEM)")
	fs.BoolVar(&f.http2, "http2", false, "offer HTTP/2 on the registry's TLS listener")
	fs.BoolVar(&f.objectsByName, "objects-by-name", false, "put the name of AWS's bucket instead of the address into blob redirects")
	fs.StringVar(&f.readyFile, "ready-file", "", "write the line with the addresses to this `file`, too")
	fs.Var(&f.hosts, "accept-host", "further Host header, with or without port, that means this registry (repeatable)")
	fs.BoolVar(&f.strictHost, "strict-host", false, "refuse the listen address as Host header; only ECR-shaped names and --accept-host remain")
	fs.IntVar(&f.port, "port-in-names", 0, "`port` to append to the registry's name in proxyEndpoint, repositoryUri and realm")
	fs.BoolVar(&f.mounting, "blob-mounting", false, "start with the account setting BLOB_MOUNTING=ENABLED")
	fs.Var(&f.createOnPush, "create-on-push", "repository `prefix`, or ROOT, with a creation template for CREATE_ON_PUSH (repeatable)")
	fs.Var(&f.pullThrough, "pull-through", "pull-through cache rule `PREFIX=URL` (repeatable)")
	fs.BoolVar(&f.quotas, "quotas", false, "throttle with AWS's default quotas")
	fs.StringVar(&f.switches, "switches", "", "unverified manners of ECR to change, as `JSON` such as {\"inlineConfigs\":true}")
	fs.Var(&f.more, "more", "further registry `ACCOUNT/REGION`, found by its ECR-shaped name (repeatable)")
	fs.DurationVar(&f.creationDelay, "creation-delay", ecrtest.DefaultSwitches().CreationDelay, "`time` until a repository is found that the API has created")
	fs.Var(&f.seeds, "seed", "image `NAME:TAG[=LAYERSxBYTES]` to start with (repeatable)")
	fs.Var(&f.repositories, "repository", "empty repository to start with (repeatable)")
	fs.Var(&f.hubUsers, "hub-user", "`NAME:PASSWORD` of a user of the hub (repeatable)")
	fs.BoolVar(&f.hubPushUser, "hub-push-needs-user", false, "refuse anonymous pushes to the hub")
	fs.IntVar(&f.hubPullLimit, "hub-pull-limit", 0, "manifest GETs within six hours (default: shown as 100 and not enforced)")
	fs.Int64Var(&f.rate, "rate", 0, "bytes per second of one answer (default: unlimited)")
	fs.Int64Var(&f.rateTotal, "rate-total", 0, "bytes per second of all answers together (default: unlimited)")
	fs.BoolVar(&f.verbose, "verbose", false, "log every request on stderr")
	if err := fs.Parse(args); err != nil {
		return nil, nil, err
	}
	return f, fs.Args(), nil
}

func (f *flags) personality() string {
	switch {
	case f.hub:
		return ecrtest.Hub().Name
	case f.public:
		return ecrtest.Public().Name
	}
	return ecrtest.ECR().Name
}

// options converts the command line to the server's options.
func (f *flags) options(log *slog.Logger) (ecrtest.Options, error) {
	o := ecrtest.Options{Account: f.account, Region: f.region, Dir: f.dir, AcceptHosts: f.hosts, StrictHost: f.strictHost, Port: f.port,
		SelfSigned: f.tls, HTTP2: f.http2, ObjectsByName: f.objectsByName, BlobMounting: f.mounting, Bandwidth: ecrtest.Bandwidth{PerConnection: f.rate, Total: f.rateTotal},
		Hub: ecrtest.HubOptions{PushNeedsUser: f.hubPushUser, PullLimit: f.hubPullLimit, Users: map[string]string{}}}
	switch {
	case f.hub && f.public:
		return o, errors.New("--hub and --public: give one of them")
	case f.env && (f.hub || f.public):
		return o, errors.New("--env says how dray uses ECR: leave out --hub and --public")
	case f.hub:
		o.Quirks = ecrtest.Hub()
	case f.public:
		o.Quirks = ecrtest.Public()
		o.HTTP2 = true // as ECR Public does in lablup/backend.ai#2549
	}
	if f.verbose {
		o.Logger = log
	}
	if f.quotas {
		o.Quotas = ecrtest.DefaultQuotas()
	}
	return o, errors.Join(f.lists(&o), f.documents(&o))
}

// lists converts the repeatable flags whose values have another form in the options.
func (f *flags) lists(o *ecrtest.Options) error {
	for _, p := range f.createOnPush {
		o.CreateOnPush = append(o.CreateOnPush, ecrtest.CreationTemplate{Prefix: p})
	}
	for _, m := range f.more {
		account, region, ok := strings.Cut(m, "/")
		if !ok {
			return fmt.Errorf("--more %q: want ACCOUNT/REGION", m)
		}
		o.More = append(o.More, ecrtest.RegistryID{Account: account, Region: region})
	}
	for _, rule := range f.pullThrough {
		prefix, url, ok := strings.Cut(rule, "=")
		if !ok {
			return fmt.Errorf("--pull-through %q: want PREFIX=URL", rule)
		}
		o.PullThrough = append(o.PullThrough, ecrtest.PullThroughRule{Prefix: prefix, Upstream: url})
	}
	for _, u := range f.hubUsers {
		name, password, ok := strings.Cut(u, ":")
		if !ok {
			return errors.New("--hub-user: want NAME:PASSWORD")
		}
		o.Hub.Users[name] = password
	}
	return nil
}

// documents reads the flags about switches and the certificate.
func (f *flags) documents(o *ecrtest.Options) error {
	sw := ecrtest.DefaultSwitches()
	sw.CreationDelay = f.creationDelay
	o.Switches = &sw
	if f.switches != "" {
		d := json.NewDecoder(strings.NewReader(f.switches))
		d.DisallowUnknownFields()
		if err := d.Decode(&sw); err != nil {
			return fmt.Errorf("--switches: %w", err)
		}
	}
	if f.certFile != "" || f.keyFile != "" {
		cert, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
		if err != nil {
			return fmt.Errorf("load certificate: %w", err)
		}
		o.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	return nil
}
