package main

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"dray/mirror/admin/api"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// answers has a pattern of the answer to each question of docs/questions.md.
var answers = map[string]string{
	"Why was this pull no cache hit, and what took so long?":                            `(?s)It had been evicted \d+ s before.*asked .*: GET /v2/team/app/blobs/sha256:\w+: 307, .* in .* s`,
	"Who pulled this image last?":                                                       `Last pull\n.* ago, by 127\.0\.0\.1 with Go-http-client/1\.1: .* from `,
	"Is this image in the cache, as a whole?":                                           `ecr/team/app +v1 .* \d of 3 `,
	"What would the next pull ask of the registry?":                                     `(?s)Next pull\n.*(It costs no request|It costs \d+ requests?) to the upstream`,
	"Which registry does this name go to, and why?":                                     `repository library/alpine of the upstream hub .* because the name begins with docker\.io, a (prefix|host) of the upstream`,
	"When did the registry last confirm this tag, and how long does dray believe that?": `It means sha256:\w+, as the upstream said \d+ s ago\. dray serves that without a question for \d+ min more`,
	"What is left of Docker Hub's limit?":                                               `\d+ of 100 pulls were left \d+ s ago`,
	"Is a pull stuck?":                                                                  `(?s)PULLS .*RATE.*STATE.*ecr/team/app:v1 `,
	"Is the registry down?":                                                             `(?s)Upstream ecr\n.*The last error: `,
	"May this user push there, and which rule says so?":                                 `push +allowed +by rule 1 of auth`,
	"Why was this push rejected?":                                                       `(?s)was rejected by the checks gate.*\[names/[\w-]+\].*Report: /dray/reports/\w+`,
	"Is the queue moving?":                                                              `(?s)STATE.*AGE.*ATTEMPTS.*(waiting|forwarding).*team/app:v2`,
	"Did the last push of this image fail for good?":                                    `(?s)STATE.*team/app`,
	"What did the cache save?":                                                          `(?i)saved +`,
	"What did it save in money and time?":                                               `savings\.path`,
	"What would be evicted next?":                                                       `(?s)WHY.*sha256:`,
	"What is protected from eviction?":                                                  `docker\.io/library/alpine:3|hub/library/alpine:3`,
	"Will this client trust and use the mirror?":                                        `(?s)docker.*alpine:3 gets sha256:`,
	"Is something wrong with the mirror?":                                               `(?s)degraded.*ecr`,
	"Did my change of the configuration take effect?":                                   `nothing has changed`,
	"What happened in the last day?":                                                    `(?s)"points": \[.*"misses": [1-9]`,
	"Which pulls were no hits, lately?":                                                 `"cause": "evicted"`,
}

// eventful is a dray with a past: it has pulled, evicted, refused, pinned, queued and failed
// something. The ID is that of a request for what was evicted.
func eventful(t *testing.T) (s *stack, id string) {
	rules := usersOf(t, "{users: [alice], repositories: ['*'], actions: [pull, push]}, {anonymous: true, repositories: ['*'], actions: [pull, push]}")
	hub := ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()})
	s = startBefore(t, ecrtest.Start(t, ecrtest.Options{}), hub, t.TempDir(),
		"  push: true\n", "  push: true\n  checks: [gate]\n  acknowledge: local\n", "upstreams:\n", rules+"\nchecks:\n- {name: gate, names: {mode: enforce, forbidden_tags: [bad]}}\nupstreams:\n",
		"{name: main,", "{name: main, role: registry, auth: people,", "upstreams: [ecr, hub]", "upstreams: [hub, ecr]", "prefixes: [hub]", "prefixes: [docker.io]")
	accept := strings.Join(oci.AnyManifest(), ", ")
	img := seed(t, s.ecr, "team/app", "v1", 40<<10)
	alpine := seed(t, s.hub, "library/alpine", "3", 1<<10)
	if status := s.pullWhole("/v2/aws/team/app", "v1"); status != http.StatusOK {
		t.Fatal(status)
	}
	if r := s.pushImage("aws/team/app", "bad", newImage(t, plainConfig, noise(9, 1<<10))); r.StatusCode != http.StatusForbidden {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	s.planned(2) // but those of the push that was refused
	operated[api.Evicted](s, "evict", "--bytes", "1TB")
	s.want(200, "GET", "/v2/aws/team/app/manifests/v1", nil, "Accept", accept)
	s.want(200, "GET", "/v2/aws/team/app/blobs/"+img.layer.String(), nil, "X-Request-Id", "evicted.blob")
	s.want(200, "GET", "/v2/docker.io/library/alpine/manifests/3", nil, "Accept", accept)
	s.want(200, "GET", "/v2/docker.io/library/alpine/blobs/"+alpine.layer.String(), nil)
	s.missed("evicted.blob")
	operated[api.Pin](s, "pin", "docker.io/library/alpine:3")
	s.outage()
	if r := s.do("GET", "/v2/aws/team/app/manifests/v3", nil); r.StatusCode < 500 {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	s.push("aws/team/app", "v2", noise(7, 3<<10))
	s.until(func() bool { // the queue has tried once, and failed
		q := s.queue.List()
		return len(q) == 1 && q[0].Attempts > 0
	})
	return s, "evicted.blob"
}

// questionRow is a row of the table of docs/questions.md.
var questionRow = regexp.MustCompile("(?m)^\\| ([^|]+\\?) \\| `([^`]+)` \\| ")

// TestQuestions runs each command of docs/questions.md against a dray with a past, and looks for
// the answer.
func TestQuestions(t *testing.T) {
	s, id := eventful(t)
	root, asked := t.TempDir(), map[string]bool{}
	if code, _, stderr := runDray(t, nil, "setup", "docker", "--url", s.url, "--root", root, "--write"); code != 0 {
		t.Fatal(stderr)
	}
	for _, row := range questionRow.FindAllStringSubmatch(read(t, "../../docs/questions.md"), -1) {
		question, args := row[1], strings.Fields(strings.NewReplacer("REQUEST_ID", id, "MIRROR", s.url).Replace(row[2]))
		asked[question] = true
		var code int
		var out, errs string
		switch {
		case args[0] == "curl":
			out = s.fetched("http://" + s.admin() + strings.TrimPrefix(args[2], "localhost:6060"))
		case args[1] == "doctor":
			code, out, errs = runDray(t, nil, append(args[1:], "--root", root)...)
		default:
			code, out, errs = s.operator(args[1:]...)
		}
		switch want := answers[question]; {
		case want == "":
			t.Errorf("the question %q has no answer here", question)
		case code != exitOK:
			t.Errorf("%s: %d %s%s", question, code, out, errs)
		case !regexp.MustCompile(want).MatchString(out):
			t.Errorf("%s: %q does not say %s:\n%s", question, row[2], want, out)
		}
	}
	for question := range answers {
		if !asked[question] {
			t.Errorf("docs/questions.md does not ask %q", question)
		}
	}
	if len(asked) < 20 {
		t.Errorf("there are only %d questions", len(asked))
	}
}

// fetched returns the body of a successful answer.
func (s *stack) fetched(url string) string {
	s.Helper()
	r, err := http.Get(url)
	if err != nil {
		s.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		s.Fatalf("%s: %d %v %s", url, r.StatusCode, err, body)
	}
	return string(body)
}
