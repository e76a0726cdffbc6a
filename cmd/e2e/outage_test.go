package e2e

import (
	"cmp"
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"dray/upstream/ecrtest"
)

// withLocalAcknowledgement has dray acknowledge pushes before ECR has them.
func withLocalAcknowledgement(config map[string]any) {
	for _, u := range config["upstreams"].([]any) {
		if upstream := u.(map[string]any); upstream["name"] == "ecr" {
			upstream["acknowledge"] = "local"
		}
	}
}

// outageClients are the clients that push images or charts. client installs one on a machine, where
// one and multi are what layouts has put there.
var outageClients = []struct {
	name   string
	client func(t *testing.T, m *machine, one, multi string) tool
}{
	{"Docker", dockerTool(func(t *testing.T, m *machine) *docker { return startDocker(t, m) })},
	{"Docker 29", dockerTool(docker29)},
	{"containerd", containerdTool(need)},
	{"containerd 2", containerdTool(needBuilt)},
	{"BuildKit", buildkitTool},
	{"crane", crane},
	{"regctl", regctl},
	{"oras", oras},
	{"Skopeo", skopeo},
	{"Podman", podman},
	{"Buildah", buildah},
	{"Helm", helm},
}

// TestPushInOutage has each client push where pushes are acknowledged before ECR has them, while
// ECR takes nothing, from the start of dray on. Each push succeeds, and is in ECR after the outage.
func TestPushInOutage(t *testing.T) {
	for _, outage := range []struct {
		name   string
		begins func(s *stack) // and starts dray
		ends   func(s *stack)
	}{
		{"the registry is down", failing(ecrtest.Fault{Close: true, Count: -1}), recovered},
		{"the registry answers 429", failing(ecrtest.Fault{Status: 429, Count: -1}), recovered},
		{"dray has no AWS credentials", func(s *stack) {
			s.startWith(slices.DeleteFunc(s.ecr.awsEnvironment(), func(v string) bool {
				return strings.HasPrefix(v, "AWS_ACCESS_KEY_ID=") || strings.HasPrefix(v, "AWS_SECRET_ACCESS_KEY=")
			}))
		}, func(s *stack) { s.dray.stop(); s.start() }},
	} {
		t.Run(outage.name, func(t *testing.T) {
			s := newStack(t, stackOptions{configure: withLocalAcknowledgement, stopped: true})
			outage.begins(s)
			pushed := map[string]tool{} // by reference
			for _, c := range outageClients {
				// A missing client skips only its own tests.
				t.Run(c.name, func(t *testing.T) {
					m := newContainersMachine(t, s)
					write(t, filepath.Join(m.home, ".docker/config.json"), dockerAuth())
					one, multi := layouts(t, m)
					client := c.client(t, m, one, multi)
					client.name = c.name
					ref := "outage/" + strings.ReplaceAll(strings.ToLower(c.name), " ", "-") + "/app:" + cmp.Or(client.tag, "1")
					if opOutage.row(t, client.name, client.version, "push while "+outage.name, func(t *testing.T) { client.push(t, ref) }) {
						pushed[ref] = client
					}
				})
			}
			for ref := range pushed {
				if repo, tag, _ := strings.Cut(ref, ":"); s.inECR(repo, tag) {
					t.Errorf("%s is in ECR during the outage", ref)
				}
			}
			if len(pushed) == 0 {
				return // no client is here
			}
			log := s.log(t)
			outage.ends(s)
			for ref, client := range pushed {
				opOutage.row(t, client.name, client.version, "after the outage, ECR has what "+client.name+" pushed", func(t *testing.T) { s.arrives(t, ref) })
			}
			answers(t, string(log))
		})
	}
}

// failing has ECR fail from before the start of dray on.
func failing(fault ecrtest.Fault) func(s *stack) {
	return func(s *stack) { s.ecr.AddFault(fault); s.start() }
}

// recovered has ECR work again, and dray forward at once what it would forward within a minute.
func recovered(s *stack) {
	s.ecr.ClearFaults()
	var waiting struct {
		Pushes []struct {
			ID uint64 `json:"id"`
		} `json:"pushes"`
	}
	queue := []string{built.dray, "queue", "--admin", s.adminAddress()}
	if err := json.Unmarshal([]byte(run(s.t, environment(), append(queue, "--json")...)), &waiting); err != nil {
		s.t.Fatal(err)
	}
	for _, push := range waiting.Pushes {
		if out, err := try(s.t, environment(), append(queue, "retry", strconv.FormatUint(push.ID, 10))...); err != nil {
			s.t.Logf("push %d is forwarded by itself: %s", push.ID, out)
		}
	}
}

func (s *stack) inECR(repo, tag string) bool {
	_, there := s.ecr.Image(repo, tag)
	return there
}

// arrives waits until ECR has what was acknowledged, and compares the two.
func (s *stack) arrives(t testing.TB, ref string) {
	t.Helper()
	repo, tag, _ := strings.Cut(ref, ":")
	for end := time.Now().Add(2 * time.Minute); !s.inECR(repo, tag); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not arrive in ECR", ref)
		}
	}
	s.sameBytes(t, ref)
}

var answerLine = regexp.MustCompile(`msg=request .*method=(\S+) kind=(\S+) status=(\d+) .*took=(\S+) .*repository=(\S+)`)

// answers shows how long dray itself took to answer the requests of each push: the first one and
// the slowest of the others. No client waits for long.
func answers(t testing.TB, log string) {
	t.Helper()
	type times struct {
		first, slowest time.Duration
		what           string
	}
	found, order := map[string]*times{}, []string(nil)
	for line := range strings.Lines(log) {
		m := answerLine.FindStringSubmatch(line)
		if m == nil || m[3] == "401" {
			continue
		}
		took, err := time.ParseDuration(m[4])
		if err != nil {
			t.Fatal(err)
		}
		if took > 4*time.Second { // 2 s, and room for a busy machine
			t.Errorf("an answer took %v: %s", took, line)
		}
		switch of := found[m[5]]; {
		case of == nil:
			found[m[5]] = &times{first: took}
			order = append(order, m[5])
		case took > of.slowest:
			of.slowest, of.what = took, m[1]+" "+m[2]
		}
	}
	if len(order) == 0 {
		t.Errorf("the log has no requests:\n%s", tail([]byte(log), 4<<10))
	}
	for _, repo := range order {
		t.Logf("%s: first answer after %v, the slowest other one after %v (%s)", repo, found[repo].first, found[repo].slowest, found[repo].what)
	}
}

// dockerTool is Docker as a tool that pushes.
func dockerTool(start func(t *testing.T, m *machine) *docker) func(t *testing.T, m *machine, one, multi string) tool {
	return func(t *testing.T, m *machine, _, _ string) tool {
		d := start(t, m)
		pushes := func(layers int, size int64) func(t *testing.T, ref string) {
			return func(t *testing.T, ref string) {
				d.load(t, at(ref), randomImage(t, types.DockerManifestSchema2, layers, size))
				d.run(t, "push", at(ref))
			}
		}
		return tool{version: d.version, push: pushes(2, 100_000), large: pushes(1, 32<<20)}
	}
}

// containerdTool is ctr as a tool that pushes.
func containerdTool(find func(testing.TB, string) string) func(t *testing.T, m *machine, one, multi string) tool {
	return func(t *testing.T, m *machine, _, _ string) tool {
		c := startContainerd(t, m, find)
		return tool{version: c.version, push: func(t *testing.T, ref string) {
			file := m.archive(t, at(ref), randomImage(t, types.DockerManifestSchema2, 2, 100_000))
			c.run(t, slices.Concat([]string{"images", "import", "--snapshotter", "native"}, c.local, []string{file})...)
			c.push(t, at(ref))
		}}
	}
}

// buildkitTool is BuildKit as a tool that pushes. It builds without a base image.
func buildkitTool(t *testing.T, m *machine, _, _ string) tool {
	b := startBuildKit(t, m)
	write(t, filepath.Join(b.context, "Dockerfile"), []byte("FROM scratch\nCOPY data /data\n"))
	write(t, filepath.Join(b.context, "data"), []byte("data\n"))
	return tool{version: b.version, push: func(t *testing.T, ref string) { b.run(t, b.build(ref)...) }}
}
