package e2e

import (
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// pullLimit is the time after which a pull is given up.
const pullLimit = 100 * time.Second

// deathClients are the clients that dray setup configures. command installs one on a machine, and
// returns what pulls an image.
var deathClients = []struct {
	name    string
	command func(t *testing.T, m *machine) func(ref string) []string
}{
	{"Docker", func(t *testing.T, m *machine) func(string) []string {
		m.setup(t, "docker", m.run(t, need(t, "dockerd"), "--version"))
		d := startDocker(t, m)
		return d.pullCommand
	}},
	{"Docker 29 (containerd store)", func(t *testing.T, m *machine) func(string) []string {
		needLarge(t, "dockerd")
		m.setup(t, "docker", "29")
		d := docker29(t, m)
		return d.pullCommand
	}},
	{"Docker 29 (classic store)", func(t *testing.T, m *machine) func(string) []string {
		daemon := needLarge(t, "dockerd")
		m.put("docker/daemon.json", []byte("{\n  \"features\": {\"containerd-snapshotter\": false}\n}\n"))
		m.setup(t, "docker", "29")
		c := startContainerd(t, m, needBuilt)
		d := startDockerd(t, m, daemon, "--containerd", c.socket, "--storage-driver", "vfs", "--bridge=none", "--iptables=false", "--ip6tables=false")
		return d.pullCommand
	}},
	{"containerd", containerdPull(need)},
	{"containerd 2", containerdPull(needBuilt)},
	{"BuildKit", func(t *testing.T, m *machine) func(string) []string {
		b := startBuildKit(t, m)
		return func(ref string) []string { return b.pullCommand(t, ref) }
	}},
	{"Podman", func(t *testing.T, m *machine) func(string) []string {
		m.setup(t, "podman", "")
		podman := podmanCommand(t, m)
		return func(ref string) []string { return slices.Concat(podman, []string{"pull", "--quiet", ref}) }
	}},
}

func (d *docker) pullCommand(ref string) []string {
	return slices.Concat(d.client, []string{"--host", d.socket, "pull", "--quiet", ref})
}

func containerdPull(find func(testing.TB, string) string) func(t *testing.T, m *machine) func(string) []string {
	return func(t *testing.T, m *machine) func(string) []string {
		m.setup(t, "containerd", m.run(t, find(t, "containerd"), "--version"))
		c := startContainerd(t, m, find)
		return func(ref string) []string {
			return slices.Concat([]string{c.client, "--address", c.socket}, c.pullArgs(ref))
		}
	}
}

// patient is a client that pulls from a mirror that dies, in a network in which the registries
// themselves answer.
type patient struct {
	t       *testing.T
	name    string
	m       *machine
	s       *stack
	mirror  *mortal
	command func(ref string) []string
	// number is part of the names of the images, pulls counts them.
	number, pulls int
	// plain is the time of a pull without a mirror.
	plain time.Duration
}

func newPatient(t *testing.T, s *stack, name string, number int, command func(t *testing.T, m *machine) func(string) []string) *patient {
	t.Helper()
	m := newMachine(t, s)
	m.registries = []string{"docker.io"} // Quay is the registry without a mirror
	const hub, quay = "127.0.0.2", "127.0.0.3"
	mirror := fmt.Sprintf("127.0.1.%d", number)
	m.put("hosts", []byte("127.0.0.1 localhost\n"+mirror+" "+drayName+"\n"+hub+" docker.io registry-1.docker.io index.docker.io\n"+quay+" quay.io\n"))
	m.put("ssl/certs/ca-certificates.crt", slices.Concat(read(t, s.hub.ca), read(t, s.quay.ca)))
	n := newNetwork(t, staticBusybox(t), mirror)
	m.inside = n.inside
	for from, to := range map[string]string{hub + ":443": s.hub.RegistryAddr, quay + ":443": s.quay.RegistryAddr, s.hub.storage: s.hub.storage, s.quay.storage: s.quay.storage} {
		n.forward(t, from, to)
	}
	p := &patient{t: t, name: name, number: number, m: m, s: s}
	p.mirror = newMortal(t, s, n, net.JoinHostPort(mirror, "443"))
	p.command = command(t, m)
	return p
}

// outcome is how a pull ended.
type outcome struct {
	more time.Duration // than without a mirror
	word string        // in place of the time
}

const (
	fails   = "fails"
	tooLong = "over 100 s"
)

// pull pulls an image of ten layers that the client has not seen.
func (p *patient) pull(d *double, host string) outcome {
	p.t.Helper()
	p.pulls++
	ref := fmt.Sprintf("library/client%d-%d:1", p.number, p.pulls)
	d.push(p.t, ref, randomImage(p.t, types.DockerManifestSchema2, 10, 20_000))
	limited := slices.Concat([]string{need(p.t, "timeout"), "--kill-after=5", strconv.Itoa(int(pullLimit.Seconds()))}, p.command(host+"/"+ref))
	began := time.Now()
	out, err := p.m.try(p.t, limited...)
	took := time.Since(began)
	switch {
	case took > pullLimit:
		return outcome{word: tooLong}
	case err != nil:
		p.t.Logf("%s: the pull of %s fails after %v: %v\n%s", p.name, ref, took, err, out)
		return outcome{word: fails}
	}
	return outcome{more: max(took-p.plain, 0)}
}

// best repeats a pull that should take little time, and returns the shortest, because the machine
// of the test has other work.
func best(pull func() outcome) outcome {
	shortest := pull()
	for range 2 {
		if shortest.word == "" && shortest.more < 300*time.Millisecond {
			break
		}
		if o := pull(); o.word == "" && (shortest.word != "" || o.more < shortest.more) {
			shortest = o
		}
	}
	return shortest
}

// sick pulls while the mirror is dead, or dies after it has sent the manifest.
func (p *patient) sick(way death, later bool) outcome {
	p.t.Helper()
	p.mirror.bear()
	if later {
		p.mirror.dieAtBlob(way)
	} else {
		p.mirror.die(way)
	}
	o := p.pull(p.s.hub, "docker.io")
	if later {
		p.mirror.mu.Lock()
		defer p.mirror.mu.Unlock()
		if p.mirror.way != way {
			p.t.Errorf("%s asked the mirror for no blob", p.name)
		}
	}
	return o
}

// deathTable is one of the tables of docs/clients.md.
type deathTable struct {
	begins string
	later  bool // the mirror dies after it has sent the manifest
	mu     sync.Mutex
	found  map[string]map[death]outcome // by the client
}

var deaths = []death{stopped, refusing, silent, frozen}

// TestDeadMirror measures how long each client pulls while the mirror is dead, with what dray setup
// writes, and compares that with docs/clients.md. The deaths that take long are tried only where
// every client has to be there, or where the tables are written.
func TestDeadMirror(t *testing.T) {
	needRoot(t)
	s := newStack(t, stackOptions{})
	tables := []*deathTable{
		{begins: "<!-- how long pulls take while the mirror is dead, found by the tests -->\n", found: map[string]map[death]outcome{}},
		{begins: "<!-- how long pulls take if the mirror dies after the manifest, found by the tests -->\n", later: true, found: map[string]map[death]outcome{}},
	}
	long := *update || os.Getenv("DRAY_REQUIRE_CLIENTS") == "all"
	var alone sync.Mutex // what takes little time is measured for one client at a time
	var all sync.WaitGroup
	for i, c := range deathClients {
		all.Go(func() {
			t.Run(c.name, func(t *testing.T) {
				p := func() *patient {
					alone.Lock()
					defer alone.Unlock()
					p := newPatient(t, s, c.name, i+1, c.command)
					p.plain = best(func() outcome { return p.pull(s.quay, "quay.io") }).more
					if o := best(func() outcome { return p.sick(alive, false) }); o.word != "" {
						t.Fatalf("the pull %s while the mirror is alive", o.word)
					}
					for _, table := range tables {
						for _, way := range []death{stopped, refusing} {
							table.add(p, way, best(func() outcome { return p.sick(way, table.later) }))
						}
					}
					return p
				}()
				for _, table := range tables {
					for _, way := range []death{silent, frozen} {
						if long {
							table.add(p, way, p.sick(way, table.later))
						}
					}
				}
			})
		})
	}
	all.Wait()
	for _, table := range tables {
		table.check(t, "../../docs/clients.md")
	}
}

func (d *deathTable) add(p *patient, way death, o outcome) {
	p.t.Logf("%s, later %t: %s", way, d.later, o)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.found[p.name] == nil {
		d.found[p.name] = map[death]outcome{}
	}
	d.found[p.name][way] = o
}

// check compares the table of the page with what was found, or writes it.
func (d *deathTable) check(t *testing.T, file string) {
	t.Helper()
	before, table, after, err := cutTable(file, d.begins)
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]map[death]outcome{}
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(line, "| \n"), "|")
		row := strings.TrimSpace(cells[0])
		if len(cells) != len(deaths)+1 || row == "Client" || strings.HasPrefix(row, "--") {
			continue
		}
		said[row] = map[death]outcome{}
		for i, way := range deaths {
			said[row][way] = parseOutcome(strings.TrimSpace(cells[i+1]))
		}
	}
	if *update {
		for row, found := range d.found {
			said[row] = found
		}
		if err := os.WriteFile(file, []byte(before+printDeaths(said)+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for row, found := range d.found {
		for way, o := range found {
			if says, ok := said[row][way]; !ok || !says.like(o) {
				t.Errorf("%s says of %s and a mirror that is %s: %s, the test found: %s; go test ./cmd/e2e -run TestDeadMirror -update writes the tables", file, row, way, says, o)
			}
		}
	}
}

func printDeaths(rows map[string]map[death]outcome) string {
	var b strings.Builder
	b.WriteString("| Client |")
	for _, way := range deaths {
		b.WriteString(" " + string(way) + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(deaths)) + "\n")
	for _, row := range slices.Sorted(maps.Keys(rows)) {
		b.WriteString("| " + row + " |")
		for _, way := range deaths {
			b.WriteString(" " + rows[row][way].String() + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (o outcome) String() string {
	switch seconds := o.more.Seconds(); {
	case o.word != "":
		return o.word
	case seconds < 9.95:
		return fmt.Sprintf("+%.1f s", seconds)
	default:
		return fmt.Sprintf("+%.0f s", seconds)
	}
}

func parseOutcome(cell string) outcome {
	seconds, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimPrefix(cell, "+"), " s"), 64)
	if err != nil {
		return outcome{word: cell}
	}
	return outcome{more: time.Duration(seconds * float64(time.Second))}
}

// like reports whether two outcomes are the same for whoever waits: the times differ by less than
// two seconds, or by less than a third.
func (o outcome) like(other outcome) bool {
	if o.word != "" || other.word != "" {
		return o.word == other.word
	}
	return (o.more - other.more).Abs() < max(2*time.Second, o.more/3)
}

func TestOutcome(t *testing.T) {
	second := func(n float64) outcome { return outcome{more: time.Duration(n * float64(time.Second))} }
	for _, tc := range []struct {
		a, b outcome
		like bool
		text string
	}{
		{second(0), second(1.8), true, "+0.0 s"},
		{second(0.26), second(2.5), false, "+0.3 s"},
		{second(90.4), second(65), true, "+90 s"},
		{second(90), second(55), false, "+90 s"},
		{outcome{word: fails}, outcome{word: fails}, true, fails},
		{outcome{word: fails}, second(1), false, fails},
		{outcome{word: tooLong}, outcome{word: fails}, false, tooLong},
	} {
		if tc.a.like(tc.b) != tc.like || tc.a.String() != tc.text || !parseOutcome(tc.a.String()).like(tc.a) {
			t.Errorf("%s is like %s: %t, read again: %s", tc.a, tc.b, tc.a.like(tc.b), parseOutcome(tc.a.String()))
		}
	}
}
