package e2e

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"dray/upstream/ecrtest"
)

// pushFleet is three drays of a fleet behind nginx, which gives each request to the next one.
type pushFleet struct {
	*stack // dray's address is that of nginx
	ips    []string
	files  []string
	drays  []*process
}

// newPushFleet starts nginx as docs/proxies.md shows it, but without affinity.
func newPushFleet(t *testing.T) *pushFleet {
	t.Helper()
	program, server := need(t, "nginx"), need(t, "redis-server")
	f := &pushFleet{stack: newStack(t, stackOptions{stopped: true})}
	redis := net.JoinHostPort(f.ip, "6379")
	start(t, "redis", environment(), server, "--bind", f.ip, "--port", "6379", "--save", "", "--dir", shortDir(t)).await(redis, dials(redis))
	secret := filepath.Join(f.dir, "fleet")
	write(t, secret, []byte(strings.Repeat("a secret of the fleet ", 2)))
	lines := regexp.MustCompile("(?s)```nginx\n(.*?)```").FindStringSubmatch(string(read(t, "../../docs/proxies.md")))
	if lines == nil {
		t.Fatal("docs/proxies.md has no lines for nginx")
	}
	servers := ""
	for i := range 3 {
		ip := nextIP()
		f.ips = append(f.ips, ip)
		f.files = append(f.files, f.memberFile(i, ip, redis, secret))
		f.drays = append(f.drays, f.member(i))
		servers += "server " + net.JoinHostPort(ip, "5000") + " fail_timeout=1s;\n"
	}
	startNginx(t, program, f.registryAddress(), replaceAll(t, lines[1], map[string]string{
		"hash $remote_addr consistent;": "", "server 127.0.0.1:5000;": servers, "listen 443": "listen " + f.registryAddress(),
		"registry.example.com": drayName, "/etc/ssl/registry.pem": f.certificate, "/etc/ssl/registry.key": f.key,
	}))
	return f
}

// dials succeeds if something listens at an address.
func dials(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// memberFile writes the configuration of a member: that of the stack, behind nginx.
func (f *pushFleet) memberFile(i int, ip, redis, secret string) string {
	f.t.Helper()
	var config map[string]any
	if err := yaml.Unmarshal(read(f.t, f.configFile), &config); err != nil {
		f.t.Fatal(err)
	}
	listener := config["listeners"].([]any)[1].(map[string]any)
	delete(listener, "tls") // nginx speaks it
	listener["address"], listener["name"] = net.JoinHostPort(ip, "5000"), "registry"
	listener["external_url"], listener["trusted_proxies"] = "https://"+drayName+":5000", []string{"127.0.0.0/8"}
	config["listeners"] = []any{listener}
	dir := filepath.Join(f.dir, strconv.Itoa(i))
	config["cache"].(map[string]any)["directory"] = filepath.Join(dir, "cache")
	config["state"] = map[string]any{"directory": filepath.Join(dir, "state")}
	config["admin"] = map[string]any{"address": net.JoinHostPort(ip, "6060")}
	config["metadata"] = map[string]any{"url": "redis://" + redis}
	config["fleet"] = map[string]any{"address": net.JoinHostPort(ip, "5443"), "secret_file": secret}
	out, err := yaml.Marshal(config)
	if err != nil {
		f.t.Fatal(err)
	}
	file := filepath.Join(dir, "dray.yaml")
	write(f.t, file, out)
	return file
}

// member runs a member, and waits until it is ready.
func (f *pushFleet) member(i int) *process {
	f.t.Helper()
	p := start(f.t, "member", environment(append(f.ecr.awsEnvironment(), "HOME="+f.dir, "GOTRACEBACK=all")...), built.dray, "serve", "--config", f.files[i])
	p.awaitHTTP("http://" + net.JoinHostPort(f.ips[i], "6060") + "/readyz")
	return p
}

// scraper gives a member that has just been killed little time to answer.
var scraper = &http.Client{Timeout: 5 * time.Second}

// metric returns the sum of a metric of a member.
func (f *pushFleet) metric(i int, name string) (sum float64) {
	resp, err := scraper.Get("http://" + net.JoinHostPort(f.ips[i], "6060") + "/metrics")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if series, value, ok := strings.Cut(lines.Text(), " "); ok && (series == name || strings.HasPrefix(series, name+"{")) {
			v, _ := strconv.ParseFloat(value, 64)
			sum += v
		}
	}
	return sum
}

// killWhen kills the member that the function when names, as soon as it names one. The result waits
// for that, unless the push is over, and starts the member again. That also happens when the test
// ends early, so that it does not kill a member during another one.
func (f *pushFleet) killWhen(t *testing.T, when func() (member int, now bool)) (again func() (killed bool)) {
	over, dead := make(chan struct{}), make(chan int)
	go func() {
		defer close(dead)
		for {
			if i, now := when(); now {
				f.drays[i].kill()
				dead <- i
				return
			}
			select {
			case <-over:
				return
			case <-time.After(5 * time.Millisecond): // nothing tells the test what the others do
			}
		}
	}()
	ended := false
	again = func() bool {
		if ended {
			return false
		}
		ended = true
		close(over)
		i, killed := <-dead
		if killed {
			f.drays[i] = f.member(i)
		}
		return killed
	}
	t.Cleanup(func() { again() })
	return again
}

// killDuring is killWhen at the moment at which ECR gets the first layer of the next push. It kills
// the member that works on the push, as far as that can be seen.
func (f *pushFleet) killDuring(t *testing.T, round int) (again func() (killed bool)) {
	asked := f.ecr.asked()
	// The manifest waits for the layer, so the push lasts for so long at least.
	fault := f.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadStart}, Latency: 2 * time.Second})
	mend := sync.OnceFunc(func() { f.ecr.RemoveFault(fault) })
	t.Cleanup(mend)
	end := f.killWhen(t, func() (int, bool) {
		worst, most := round%len(f.drays), 0.0
		for i := range f.drays {
			if n := 10*f.metric(i, "dray_uploads_open") + f.metric(i, "dray_fleet_repositories"); n > most {
				worst, most = i, n
			}
		}
		return worst, asked.since(ecrtest.KindUploadStart) > 0
	})
	return func() bool {
		defer mend()
		return end()
	}
}

// killUploading is killWhen at the moment at which a member begins to get a layer. It kills that
// member.
func (f *pushFleet) killUploading(t *testing.T) (again func() (killed bool)) {
	var left [3]float64 // of pushes that have failed
	for i := range f.drays {
		left[i] = f.metric(i, "dray_uploads_open")
	}
	return f.killWhen(t, func() (member int, now bool) {
		for i := range f.drays {
			if f.metric(i, "dray_uploads_open") > left[i] {
				return i, true
			}
		}
		return 0, false
	})
}

// fleetRounds returns how often each client of a fleet pushes, and whether all clients do.
func fleetRounds(t *testing.T) (n int, all bool) {
	t.Helper()
	text := os.Getenv("DRAY_FLEET_ROUNDS")
	if text == "" {
		return 1, false
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n, true
}

// quickClients are those with which TestFleetClients runs unless it is told how often.
var quickClients = []string{"Docker", "containerd", "crane", "Helm"}

// TestFleetClients has clients push to three drays behind nginx, which gives each request to the
// next one. In half of the rounds, a member is killed while the client pushes. Then the push
// succeeds, or the second one does. Docker sends a layer again by itself, if it had no answer about
// that layer. DRAY_FLEET_ROUNDS is how often each client does both.
func TestFleetClients(t *testing.T) {
	rounds, all := fleetRounds(t)
	f := newPushFleet(t)
	killed, repeated := 0, 0
	for i, client := range outageClients {
		if !all && !slices.Contains(quickClients, client.name) {
			continue
		}
		t.Run(client.name, func(t *testing.T) {
			m := newContainersMachine(t, f.stack)
			write(t, filepath.Join(m.home, ".docker/config.json"), dockerAuth())
			one, multi := layouts(t, m)
			c := client.client(t, m, one, multi)
			for round := range rounds {
				app := fmt.Sprintf("fleet/%s/%d", strings.ReplaceAll(strings.ToLower(client.name), " ", "-"), round)
				tag := cmp.Or(c.tag, "1")
				row(t, client.name, c.version, "push through any of three drays", func(t *testing.T) {
					c.push(t, app+"/app:"+tag)
					f.sameBytes(t, app+"/app:"+tag)
				})
				if c.index != nil {
					row(t, client.name, c.version, "push an image of several platforms through any of three drays", func(t *testing.T) {
						c.index(t, app+"/app:multi")
						wholeIndex(t, f.stack, app+"/app:multi")
					})
				}
				row(t, client.name, c.version, "push while one of three drays is killed", func(t *testing.T) {
					again := f.killDuring(t, i+round)
					m.again = 1
					c.push(t, app+"/killed/app:"+tag)
					if again() {
						killed++
					}
					repeated += 1 - m.again
					m.again = 0
					f.sameBytes(t, app+"/killed/app:"+tag)
					f.sameBytes(t, app+"/app:"+tag) // what was acknowledged before
				})
				if client.name == "Docker" {
					row(t, client.name, c.version, "push a layer while the dray that gets it is killed", func(t *testing.T) {
						again := f.killUploading(t)
						c.large(t, app+"/large/app:1")
						if !again() {
							t.Error("no dray was killed")
						}
						f.sameBytes(t, app+"/large/app:1")
					})
				}
			}
		})
	}
	if t.Logf("%d members were killed, and %d pushes were repeated by hand", killed, repeated); killed == 0 && !t.Failed() {
		t.Error("no member was killed during a push")
	}
}
