package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dray/cache/meta/metatest"
	"dray/cmd/dray/doctor"
	"dray/upstream/ecrtest"
)

// doctored is what dray doctor finds with the configuration of a stack, by id.
func (s *stack) doctored(environ []string, args ...string) (code int, found map[string]doctor.Finding) {
	s.Helper()
	t := s.TB.(*testing.T)
	code, stdout, stderr := runDray(t, environ, append([]string{"doctor", "--config", s.path, "--json"}, args...)...)
	var r doctor.Report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		s.Fatalf("%d %s%s", code, stdout, stderr)
	}
	found = map[string]doctor.Finding{}
	for _, f := range r.Findings {
		if f.ID == "" || f.Category == "" || f.Text == "" || (f.Status == doctor.Failed || f.Status == doctor.Warning) && f.Hint == "" {
			s.Errorf("%+v", f)
		}
		if _, twice := found[f.ID]; twice {
			s.Errorf("two findings have the id %s", f.ID)
		}
		found[f.ID] = f
	}
	return code, found
}

// TestDoctor: what is broken is found, and nothing else. Statuses are those of the findings that
// depend on no property of the machine that runs the test.
func TestDoctor(t *testing.T) {
	clock := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		_, _ = w.Write([]byte("{}"))
	}))
	defer clock.Close()
	// regional takes the credentials of one region.
	regional := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Authorization"), "/eu-west-1/sts/") {
			_, _ = w.Write([]byte("<R><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/x</Arn></GetCallerIdentityResult></R>"))
			return
		}
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte("<ErrorResponse><Error><Code>InvalidClientTokenId</Code></Error></ErrorResponse>"))
	}))
	defer regional.Close()
	listensPlainly := httptest.NewServer(http.NotFoundHandler())
	defer listensPlainly.Close()
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer refusing.Close()
	down := deaf(t)
	listens, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listens.Close()
	fine := map[string]doctor.Status{
		"configuration.valid": doctor.OK, "disk.space": doctor.OK, "listener.main": doctor.OK, "aws.identity": doctor.OK, "machine.proxy": doctor.OK,
		"registry.ecr.reachable": doctor.OK, "registry.ecr.credentials": doctor.OK, "registry.ecr.clock": doctor.OK,
		"registry.hub.reachable": doctor.OK, "registry.hub.credentials": doctor.OK, "registry.hub.clock": doctor.OK,
	}
	for name, tc := range map[string]struct {
		edits   []string
		environ []string
		broken  func(s *stack)
		want    map[string]doctor.Status // beside what is fine
		hint    string                   // of the findings about registries
	}{
		"all is well":     {},
		"nothing listens": {edits: []string{listens.Addr().String(), down}, want: map[string]doctor.Status{"listener.main": doctor.Warning}},
		"no room":         {edits: []string{"min_free_bytes: 0", "min_free_bytes: 1000TiB"}, want: map[string]doctor.Status{"disk.space": doctor.Failed}},
		"a registry is down": {edits: []string{"http://HUB_ADDR", "http://" + down}, want: map[string]doctor.Status{
			"registry.hub.reachable": doctor.Failed, "registry.hub.credentials": doctor.Failed, "registry.hub.clock": doctor.Unknown,
		}},
		"a registry without TLS": {edits: []string{"http://HUB_ADDR", "https://" + listensPlainly.Listener.Addr().String()}, want: map[string]doctor.Status{
			"registry.hub.reachable": doctor.Failed, "registry.hub.credentials": doctor.Failed, "registry.hub.clock": doctor.Unknown,
		}, hint: "write http:// before the host in url, if this registry has no TLSfirst let dray reach the registry"},
		"a registry refuses the password": {edits: []string{"http://HUB_ADDR", refusing.URL}, want: map[string]doctor.Status{"registry.hub.credentials": doctor.Failed},
			hint: "the password in password_file or password_env"},
		"a registry fails": {broken: func(s *stack) {
			s.hub.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindBase}, Count: -1, Status: 503})
		}, want: map[string]doctor.Status{"registry.hub.reachable": doctor.Failed, "registry.hub.credentials": doctor.Failed}},
		"a wrong clock": {edits: []string{"http://HUB_ADDR", clock.URL}, want: map[string]doctor.Status{"registry.hub.clock": doctor.Failed}},
		"AWS gives no token": {broken: func(s *stack) {
			s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{"GetAuthorizationToken"}, Count: -1, Status: 400})
		}, want: map[string]doctor.Status{"registry.ecr.credentials": doctor.Failed}, hint: "that the AWS SDK finds, and at role_arn of the upstream"},
		"AWS does not answer": {broken: func(s *stack) {
			setenv(s.TB, "AWS_ENDPOINT_URL_STS", "http://"+down)
			setenv(s.TB, "AWS_MAX_ATTEMPTS", "1")
		},
			want: map[string]doctor.Status{"aws.identity": doctor.Unknown}},
		"AWS knows nobody": {broken: func(s *stack) {
			setenv(s.TB, "AWS_ENDPOINT_URL_STS", regional.URL)
			setenv(s.TB, "AWS_REGION", "us-east-1")
		}, want: map[string]doctor.Status{"aws.identity": doctor.Failed}},
		"no region in the environment": {broken: func(s *stack) {
			setenv(s.TB, "AWS_ENDPOINT_URL_STS", regional.URL)
			setenv(s.TB, "AWS_REGION", "")
			setenv(s.TB, "AWS_DEFAULT_REGION", "")
		}},
		"Redis is down":        {edits: []string{"cache: {dir", "metadata: {url: 'redis://" + down + "'}\ncache: {dir"}, want: map[string]doctor.Status{"facts.redis": doctor.Failed}},
		"a proxy that is none": {environ: []string{"HTTPS_PROXY=proxy:3128:x"}, want: map[string]doctor.Status{"machine.proxy": doctor.Failed}},
	} {
		t.Run(name, func(t *testing.T) {
			edits := append([]string{"{name: main,", "{name: main, address: '" + listens.Addr().String() + "',"}, tc.edits...)
			if name == "nothing listens" {
				edits = []string{"{name: main,", "{name: main, address: '" + down + "',"}
			}
			dir := t.TempDir()
			s, _ := configured(t, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), dir, edits...)
			t.Setenv("AWS_ENDPOINT_URL_STS", s.ecr.APIURL)
			if tc.broken != nil {
				tc.broken(s)
			}
			code, found := s.doctored(tc.environ, "--admin", down)
			failures := 0
			for id, status := range fine {
				if changed, ok := tc.want[id]; ok {
					status = changed
				}
				if found[id].Status != status {
					t.Errorf("%s: %+v, want %s", id, found[id], status)
				}
			}
			if hint := found["registry.hub.reachable"].Hint + found["registry.hub.credentials"].Hint + found["registry.ecr.credentials"].Hint; !strings.Contains(hint, tc.hint) {
				t.Errorf("the hint is %q, want %q", hint, tc.hint)
			}
			for id, status := range tc.want {
				if found[id].Status != status {
					t.Errorf("%s: %+v, want %s", id, found[id], status)
				}
				if status == doctor.Failed {
					failures++
				}
			}
			if want := map[bool]int{true: exitRejected, false: exitOK}[failures > 0]; code != want {
				t.Errorf("exit code %d, want %d: %+v", code, want, found)
			}
			if f := found["dray.ready"]; f.Status != doctor.Unknown {
				t.Errorf("%+v", f)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, ".doctor-*")); len(left) > 0 {
				t.Errorf("%v is left behind", left)
			}
		})
	}
}

// TestDoctorAsksARunningDray: what a running dray knows of itself is among the findings.
func TestDoctorAsksARunningDray(t *testing.T) {
	s := startStack(t, t.TempDir())
	t.Setenv("AWS_ENDPOINT_URL_STS", s.ecr.APIURL)
	if _, found := s.doctored(nil, "--admin", s.admin()); found["dray.ready"].Status == doctor.Unknown || found["disk.sync"].Status == doctor.Failed {
		t.Errorf("%+v", found)
	}
}

// TestDoctorRedis: a policy that drops facts is a warning, and a user who may not do what dray does
// is a failure.
func TestDoctorRedis(t *testing.T) {
	server := metatest.StartRedis(t)
	for _, policy := range []string{"", "allkeys-lru"} { // in this order: the server keeps what is set
		s, _ := configured(t, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(),
			"cache: {dir", "metadata: {url: 'redis://"+server.Addr+"'}\ncache: {dir")
		t.Setenv("AWS_ENDPOINT_URL_STS", s.ecr.APIURL)
		if policy != "" {
			server.Do("CONFIG", "SET", "maxmemory-policy", policy)
		}
		_, found := s.doctored(nil)
		f := found["facts.redis"]
		if policy == "" && strings.Contains(f.Text, "evicts by") || policy != "" && (f.Status != doctor.Warning || !strings.Contains(f.Text, "evicts by "+policy)) {
			t.Errorf("%q: %+v", policy, f)
		}
	}
	server.Do("ACL", "SETUSER", "reader", "on", "nopass", "~*", "+info", "+get")
	s, _ := configured(t, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(),
		"cache: {dir", "metadata: {url: 'redis://reader:any@"+server.Addr+"'}\ncache: {dir")
	_, found := s.doctored(nil)
	if f := found["facts.redis"]; f.Status != doctor.Failed || !strings.Contains(f.Text, "write a fact: NOPERM") || f.Hint == "" {
		t.Errorf("%+v", f)
	}
}

// TestDoctorOfInvalidConfiguration: an invalid configuration is the only finding.
func TestDoctorOfInvalidConfiguration(t *testing.T) {
	path := write(t, "dray.yaml", "listeners: [{nome: main}]\n")
	code, stdout, _ := runDray(t, nil, "doctor", "--config", path)
	if code != exitRejected || !strings.Contains(stdout, "× ") || !strings.Contains(stdout, "(configuration.valid)") || !strings.Contains(stdout, "1 failure, 0 warnings") {
		t.Errorf("%d %s", code, stdout)
	}
}
