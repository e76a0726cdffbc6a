package main

import (
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/cache/meta/metatest"
	"dray/cmd/dray/config"
	"dray/upstream/ecr/host"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// recipeAsks has, for each name that a recipe of docs/cookbook.md pulls, the registry that has to
// be asked, and for which repository. An empty registry is dray itself.
var recipeAsks = map[string][2]string{
	"Docker Hub with a login: docker.io/library/alpine:3":                           {"registry-1.docker.io", "library/alpine"},
	"GitHub, Quay, Kubernetes, Google, Microsoft: ghcr.io/acme/app:1":               {"ghcr.io", "acme/app"},
	"GitHub, Quay, Kubernetes, Google, Microsoft: quay.io/prometheus/prometheus:v3": {"quay.io", "prometheus/prometheus"},
	"GitHub, Quay, Kubernetes, Google, Microsoft: registry.k8s.io/pause:3.10":       {"registry.k8s.io", "pause"},
	"Pull-through rules of ECR: docker.io/library/alpine:3":                         {testRegistry, "docker-hub/library/alpine"},
	"Pull-through rules of ECR: ghcr.io/acme/app:1":                                 {testRegistry, "github/acme/app"},
	"Other accounts and regions: frankfurt/team/app:1":                              {"123456789012.dkr.ecr.eu-central-1.amazonaws.com", "team/app"},
	"Other accounts and regions: partner/tools/lint:2":                              {"210987654321.dkr.ecr.us-east-1.amazonaws.com", "tools/lint"},
	"Passwords for people and CI: docker.io/library/alpine:3":                       {"registry-1.docker.io", "library/alpine"},
	"Pushes from CI to ECR, checked: docker.io/library/debian:13":                   {"registry-1.docker.io", "library/debian"},
	"A mirror for everyone, pushes for some: library/alpine:3":                      {"registry-1.docker.io", "library/alpine"},
	"A mirror for everyone, pushes for some: quay.io/prometheus/prometheus:v3":      {"quay.io", "prometheus/prometheus"},
	"Redis for several drays: library/alpine:3":                                     {"registry-1.docker.io", "library/alpine"},
	"A site with a bad line: library/alpine:3":                                      {"registry-1.docker.io", "library/alpine"},
	"A site without a line: docker.io/library/alpine:3":                             {},
}

// dockerLine is a command of a recipe that pulls or pushes, with the begin of its answer if dray
// refuses it.
var dockerLine = regexp.MustCompile(`(?m)^\$ docker (pull|push) ([^/]+)/(\S+):(\S+)$(\ndenied: )?`)

// TestCookbook starts dray with each configuration of docs/cookbook.md, in front of one stand-in
// for each registry, and pulls and pushes what the recipe says.
func TestCookbook(t *testing.T) {
	tried := map[string]bool{}
	for _, section := range strings.Split(read(t, "../../docs/cookbook.md"), "\n## ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		block := yamlBlock.FindStringSubmatch(text)
		if block == nil || !isOurs(parseYAML(t, block[1])) {
			continue
		}
		lines := dockerLine.FindAllStringSubmatch(text, -1)
		if len(lines) == 0 {
			t.Errorf("the recipe %q pulls nothing", title)
		}
		for _, l := range lines {
			if l[1] == "pull" {
				tried[title+": "+l[3]+":"+l[4]] = true
			}
		}
		t.Run(strings.ReplaceAll(title, ",", ""), func(t *testing.T) {
			r := startRecipe(t, block[1])
			for _, l := range lines {
				if l[5] != "" {
					r.pushSecret(l[2], l[3], l[4])
				} else {
					r.do(title, l[1], l[2], l[3], l[4])
				}
			}
		})
	}
	for name := range recipeAsks {
		if !tried[name] {
			t.Errorf("docs/cookbook.md does not pull %s", name)
		}
	}
}

// recipe is a dray with the configuration of a recipe.
type recipe struct {
	*stack
	cfg        config.Config
	registries map[string]*ecrtest.Running // by host name
	fronts     map[string]string           // the URL of each listener, by port
}

// startRecipe starts dray with a configuration whose registries are stand-ins, and whose files
// exist.
func startRecipe(t *testing.T, text string) *recipe {
	setenv(t, "AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
	setenv(t, "AWS_SECRET_ACCESS_KEY", "not-a-secret")
	setenv(t, "AWS_REGION", "eu-west-1")
	dir := t.TempDir()
	cert, key := keyPair(t)
	files := regexp.MustCompile(`/etc/dray/[\w.-]+`)
	text = files.ReplaceAllStringFunc(text, func(name string) string {
		switch filepath.Base(name) {
		case "tls.pem":
			return cert
		case "tls.key":
			return key
		case "htpasswd":
			return passwordsOf(t, map[string]string{"ci": "secret", "ann": "secret"})
		}
		return write(t, filepath.Base(name), "secret\n")
	})
	if strings.Contains(text, "redis://") {
		redis := metatest.StartRedis(t)
		redis.Do("CONFIG", "SET", "requirepass", "secret")
		text = regexp.MustCompile(`redis://\S+`).ReplaceAllString(text, "redis://"+redis.Addr+"/0")
	}
	r := &recipe{stack: &stack{TB: t, path: write(t, "dray.yaml", text)}, registries: map[string]*ecrtest.Running{}, fronts: map[string]string{}}
	cfg, err := load(r.path, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Cache.Directory, cfg.State.Directory, cfg.Cache.MinFreeBytes = dir, dir, 0
	for i := range cfg.Upstreams {
		r.standIn(&cfg.Upstreams[i])
	}
	r.cfg = cfg
	r.launch(cfg, t.Output())
	for i, l := range cfg.Listeners {
		front := httptest.NewServer(r.servers[i])
		t.Cleanup(front.Close)
		r.fronts[l.Address[strings.LastIndex(l.Address, ":"):]] = front.URL
	}
	return r
}

// standIn puts a stand-in in the place of the registry of an upstream.
func (r *recipe) standIn(u *config.Upstream) {
	r.Helper()
	if u.URL == "" {
		return
	}
	at, err := url.Parse(u.URL)
	if err != nil {
		r.Fatal(err)
	}
	registry := r.registries[at.Host]
	if registry == nil {
		o := ecrtest.Options{Quirks: ecrtest.Hub(), AcceptHosts: []string{at.Host}}
		if name, err := host.Parse(at.Host); err == nil {
			o = ecrtest.Options{Account: name.Account, Region: name.Region}
			if u.RoleARN != "" {
				o.ExternalIDs = map[string]string{u.RoleARN: u.ExternalID}
			}
		} else if u.Credentials.Username != "" {
			o.Hub.Users = map[string]string{u.Credentials.Username: "secret"}
		}
		registry = ecrtest.Start(r.TB, o)
		r.registries[at.Host] = registry
		if u.RoleARN != "" {
			setenv(r.TB, "AWS_ENDPOINT_URL_STS", registry.APIURL)
		}
	}
	u.URL, u.Address = "http://"+at.Host, registry.RegistryAddr
	if u.Kind == config.KindECR {
		u.APIURL = registry.APIURL
	}
}

// do pulls or pushes an image. The registry that the recipe means has to get the request, and no
// other.
func (r *recipe) do(title, verb, at, repo, tag string) {
	r.Helper()
	login := r.enter(at)
	if verb == "push" {
		m := r.pushAs(201, repo, tag, layerOf(3, 3000), login)
		r.want(200, "GET", "/v2/"+repo+"/blobs/"+m.Layers[0].Digest.String(), nil, login...)
		return
	}
	asks, known := recipeAsks[title+": "+repo+":"+tag]
	if !known {
		r.Errorf("recipeAsks does not say who is asked for %s", repo)
	}
	for name, registry := range r.registries {
		if name == asks[0] {
			seed(r.TB, registry, asks[1], tag, 5000)
		}
		registry.ResetCounters()
	}
	r.want(200, "GET", "/v2/"+repo+"/manifests/"+tag, nil, login...)
	for name, registry := range r.registries {
		<-registry.Idle()
		if asked := registry.Count(ecrtest.KindManifestGet) > 0; asked != (name == asks[0]) {
			r.Errorf("%s: whether %s was asked for the manifest: %t", repo, name, asked)
		}
	}
}

// enter chooses the listener that has the port of an address, and returns the header with the
// password that it wants.
func (r *recipe) enter(at string) (login []string) {
	r.Helper()
	port := at[strings.LastIndex(at, ":"):]
	if r.url = r.fronts[port]; r.url == "" {
		r.Fatalf("no listener has the port of %s", at)
	}
	for _, l := range r.cfg.Listeners {
		if strings.HasSuffix(l.Address, port) && l.Auth != "none" {
			login = []string{"Authorization", basic("ci", "secret")}
		}
	}
	return login
}

// pushSecret pushes an image with a credential in its layer, which has to be refused before the
// registry has it.
func (r *recipe) pushSecret(at, repo, tag string) {
	r.Helper()
	login := r.enter(at)
	for _, registry := range r.registries {
		registry.ResetCounters()
	}
	r.pushAs(403, repo, tag, tarOf(r, "app/settings.ini", "aws_access_key_id = AKIAQ3EGUZZSOCGV5KL2\n"), login)
	for name, registry := range r.registries {
		<-registry.Idle()
		if n := registry.Count(ecrtest.KindManifestPut); n != 0 {
			r.Errorf("%s got %d manifests", name, n)
		}
	}
}

// pushAs pushes an image of one layer to dray's first upstream, and returns its manifest. status is
// the answer to the manifest.
func (r *recipe) pushAs(status int, repo, tag string, layer []byte, login []string) *oci.Manifest {
	r.Helper()
	m := imageOf(r, layer)
	for _, blob := range [][]byte{layer, imageConfig} {
		at := r.want(202, "POST", "/v2/"+repo+"/blobs/uploads/", nil, login...).Header.Get("Location")
		at = r.url + at[strings.Index(at, "/v2/"):]
		sign := "?"
		if strings.Contains(at, "?") {
			sign = "&"
		}
		r.want(201, "PUT", at+sign+"digest="+digest.FromBytes(blob).String(), blob, login...)
	}
	r.want(status, "PUT", "/v2/"+repo+"/manifests/"+tag, m.Raw, append(login, "Content-Type", m.MediaType)...)
	return m
}
