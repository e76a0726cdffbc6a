package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/oci"
	"dray/upstream/upstreamtest"
)

// network is a registry and its storages without a network. By default the registry redirects
// blobs to the host that the name of the repository ends in, and everything else succeeds.
type network struct {
	mu    sync.Mutex
	asked []string // method, host and path
	fault func(*http.Request) (*http.Response, error)
}

// failing returns a network that answers 500 to paths that begin with prefix, as long as down is
// true.
func failing(prefix string) (n *network, down *bool) {
	fails := true
	return &network{fault: func(r *http.Request) (*http.Response, error) {
		if fails && strings.HasPrefix(r.URL.Path, prefix) {
			return respond(r, 500, "", nil), nil
		}
		return nil, nil
	}}, &fails
}

func (n *network) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	n.asked = append(n.asked, r.Method+" "+r.URL.Host+r.URL.Path)
	fault := n.fault
	n.mu.Unlock()
	if fault != nil {
		if resp, err := fault(r); resp != nil || err != nil {
			return resp, err
		}
	}
	if repo, _, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/blobs/"); ok {
		host := repo[strings.LastIndex(repo, "/")+1:]
		return respond(r, 307, "", http.Header{"Location": {"http://" + host + "/object"}}), nil
	}
	return respond(r, 200, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`, http.Header{"Content-Type": {oci.MediaTypeOCIIndex}}), nil
}

// count returns how often a request was made.
func (n *network) count(request string) (times int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.asked {
		if r == request {
			times++
		}
	}
	return times
}

// guarded returns the client of a network behind a breaker like that of the program.
func (n *network) guarded(t *testing.T) (*upstream.Breaker, *upstream.Client, upstream.Source) {
	c := upstreamtest.NewClient(t, upstream.Options{Name: "x", Base: parse(t, "http://registry.example"), Transport: n})
	b := upstream.NewBreaker(upstream.BreakerOptions{Name: "x", Lasting: 3 * time.Second, Hello: c.Hello})
	return b, c, upstream.NewRetry(b.Source(c), upstream.RetryOptions{Name: "x"})
}

func openBlob(ctx context.Context, s upstream.Source, repo string) error {
	bs, err := s.Blob(ctx, upstream.BlobRequest{Repo: upstream.Repo{Name: repo}, Digest: digest.FromString("x")})
	if err == nil {
		_ = bs.Body.Close()
	}
	return err
}

func refusedByBreaker(err error) bool {
	_, refused := errors.AsType[*upstream.OpenError](err)
	return refused
}

// TestBreakerSparesOtherRepositories: a repository that fails for good costs the others nothing,
// however often clients ask for it. Its own old answers are given without asking each time.
func TestBreakerSparesOtherRepositories(t *testing.T) {
	for name, fault := range map[string]func(r *http.Request) (*http.Response, error){
		"answered 500": func(r *http.Request) (*http.Response, error) { return respond(r, 500, "", nil), nil },
		"cut off":      func(*http.Request) (*http.Response, error) { return nil, errors.New("reset") },
	} {
		synctest.Test(t, func(t *testing.T) {
			n := &network{}
			n.fault = func(r *http.Request) (*http.Response, error) {
				if strings.HasPrefix(r.URL.Path, "/v2/broken/") {
					return fault(r)
				}
				return nil, nil
			}
			b, client, source := n.guarded(t)
			for range 20 {
				if err := get(t.Context(), source, upstream.Repo{Name: "broken"}); err == nil || refusedByBreaker(err) {
					t.Fatalf("%s: the broken repository: %v", name, err)
				}
			}
			for i := range 20 {
				if err := get(t.Context(), source, upstream.Repo{Name: fmt.Sprint("good", i)}); err != nil {
					t.Fatalf("%s: a good repository: %v", name, err)
				}
				_ = get(t.Context(), client, upstream.Repo{Name: "broken"})
			}
			held := b.Held(client)
			_ = get(t.Context(), held, upstream.Repo{Name: "broken"})
			if name == "answered 500" {
				if err := get(t.Context(), held, upstream.Repo{Name: "broken"}); !refusedByBreaker(err) {
					t.Errorf("%s: its old answer: %v", name, err)
				}
				if err := get(t.Context(), held, upstream.Repo{Name: "good"}); err != nil {
					t.Errorf("%s: the old answer of another one: %v", name, err)
				}
			}
			if b.State().Open {
				t.Errorf("%s: %+v", name, b.State())
			}
		})
	}
}

// TestBreakerOpensOnSeveralRepositories: failures of three repositories are the registry's, until
// it says hello again.
func TestBreakerOpensOnSeveralRepositories(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, down := failing("")
		b, client, _ := n.guarded(t)
		source := b.Source(client)
		for i := range 3 {
			if err := get(t.Context(), source, upstream.Repo{Name: fmt.Sprint("app", i)}); refusedByBreaker(err) {
				t.Errorf("repository %d: refused", i)
			}
		}
		time.Sleep(3 * time.Second)
		if err := get(t.Context(), source, upstream.Repo{Name: "app4"}); !refusedByBreaker(err) || !b.State().Open {
			t.Errorf("after three: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := get(t.Context(), source, upstream.Repo{Name: "app4"}); !refusedByBreaker(err) || n.count("GET registry.example/v2/") != 1 {
			t.Errorf("the probe is no hello: %v, %q", err, n.asked)
		}
		*down = false
		time.Sleep(5 * time.Second)
		if err := get(t.Context(), source, upstream.Repo{Name: "app4"}); err != nil || n.count("GET registry.example/v2/") != 2 || b.State().Failures != 0 {
			t.Errorf("once it is well: %v, %q, %+v", err, n.asked, b.State())
		}
	})
}

// TestBreakerRefusesOnlyWhatFails: while /v2/ is well, repositories that fail keep nobody from the
// others, however many they are. They themselves are asked once in a while.
func TestBreakerRefusesOnlyWhatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, down := failing("/v2/broken")
		b, client, _ := n.guarded(t)
		source, held := b.Source(client), b.Held(client)
		sent, refused := 0, 0
		for i := range 120 {
			for k := range 4 {
				if err := get(t.Context(), source, upstream.Repo{Name: fmt.Sprint("broken", k)}); refusedByBreaker(err) {
					refused++
				} else if i >= 10 {
					sent++
				}
			}
			if i%8 == 7 { // not so often that its answers hide the failures of the others
				if err := get(t.Context(), source, upstream.Repo{Name: fmt.Sprint("good", i)}); err != nil {
					t.Fatalf("a good repository after %d rounds: %v", i, err)
				}
				if err := get(t.Context(), held, upstream.Repo{Name: fmt.Sprint("good", i)}); err != nil {
					t.Fatalf("its old answer after %d rounds: %v", i, err)
				}
			}
			if b.State().Open {
				t.Fatalf("open after %d rounds: %+v", i, b.State())
			}
			time.Sleep(time.Second / 2)
		}
		if sent > 4*13 || refused < 300 { // 55 s, and one attempt in 5 s for each
			t.Errorf("of 480 questions about broken repositories, %d were refused; %d were sent after the first rounds", refused, sent)
		}
		*down = false
		time.Sleep(6 * time.Second)
		for range 2 {
			for k := range 4 {
				if err := get(t.Context(), source, upstream.Repo{Name: fmt.Sprint("broken", k)}); err != nil {
					t.Errorf("once they are well: %v", err)
				}
			}
		}
	})
}

// TestBreakerAsksAgain: a failing repository whose old answers are given does not keep the breaker
// from finding that the registry is well again.
func TestBreakerAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, down := failing("")
		b, client, _ := n.guarded(t)
		source, held := b.Source(client), b.Held(client)
		for i := range 60 {
			_ = get(t.Context(), source, upstream.Repo{Name: fmt.Sprint("app", i%4)})
			_ = get(t.Context(), held, upstream.Repo{Name: fmt.Sprint("app", i%4)})
			time.Sleep(time.Second / 3)
		}
		if !b.State().Open {
			t.Errorf("not open: %+v", b.State())
		}
		*down = false
		for range 16 {
			time.Sleep(time.Second)
			_ = get(t.Context(), held, upstream.Repo{Name: "app0"})
		}
		if err := get(t.Context(), source, upstream.Repo{Name: "app1"}); err != nil || b.State().Open {
			t.Errorf("once it is well: %v, %+v", err, b.State())
		}
	})
}

// TestBreakerTellsAnOutageSoon: where nothing is answered, the repeats of one question and one
// hello are enough to know.
func TestBreakerTellsAnOutageSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{fault: func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") }}
		_, _, source := n.guarded(t)
		began := time.Now()
		if err := get(t.Context(), source, upstream.Repo{Name: "app"}); !refusedByBreaker(err) || time.Since(began) > 7*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if err := get(t.Context(), source, upstream.Repo{Name: "other"}); !refusedByBreaker(err) || n.count("GET registry.example/v2/") != 1 {
			t.Errorf("the next one: %v, %q", err, n.asked)
		}
	})
}

// TestBreakerJudgesHostsApart has two storages, one of which is down.
func TestBreakerJudgesHostsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{fault: func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "dead" {
				return nil, errors.New("refused")
			}
			return nil, nil
		}}
		b, _, source := n.guarded(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var asking sync.WaitGroup
		for i := range 8 {
			asking.Go(func() {
				if err := openBlob(ctx, source, fmt.Sprintf("app%d/dead", i)); !errors.Is(err, upstream.ErrUnreachable) {
					t.Errorf("the dead storage: %v", err)
				}
			})
		}
		for i := range 30 {
			time.Sleep(time.Second)
			if err := openBlob(ctx, source, fmt.Sprintf("app%d/live", i)); err != nil {
				t.Errorf("the live storage: %v", err)
			}
			if err := get(ctx, source, upstream.Repo{Name: "app"}); err != nil {
				t.Errorf("the registry: %v", err)
			}
		}
		asking.Wait()
		before := n.count("GET dead/object")
		if err := openBlob(ctx, source, "app/dead"); err == nil || n.count("GET dead/object") > before+1 || !b.State().Open {
			t.Errorf("%v, asked %d times, %+v", err, n.count("GET dead/object")-before, b.State())
		}
	})
}

// TestBreakerCountsAQuestionOnce: one layer that a storage never sends is no fault of the storage,
// however often the question for it is repeated.
func TestBreakerCountsAQuestionOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		n.fault = func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "storage" && n.count("GET storage/object") < 12 {
				return nil, errors.New("reset")
			}
			return nil, nil
		}
		b, _, source := n.guarded(t)
		if err := openBlob(t.Context(), source, "app/storage"); refusedByBreaker(err) || b.State().Open || b.State().Failures > 1 {
			t.Errorf("%v, %+v", err, b.State())
		}
		if err := openBlob(t.Context(), source, "other/storage"); err != nil {
			t.Errorf("another one: %v", err)
		}
	})
}

// TestStorageRefusalIsFinal: a refusal of a storage costs one fresh redirect, and no time.
func TestStorageRefusalIsFinal(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 410} {
		synctest.Test(t, func(t *testing.T) {
			n := &network{fault: func(r *http.Request) (*http.Response, error) {
				if r.URL.Host == "storage" {
					return respond(r, status, "", nil), nil
				}
				return nil, nil
			}}
			b, _, source := n.guarded(t)
			began := time.Now()
			for i := range 10 {
				if err := openBlob(t.Context(), source, fmt.Sprintf("app%d/storage", i)); !errors.Is(err, upstream.ErrStorage) || !upstream.Transient(err) {
					t.Errorf("%d: %v", status, err)
				}
			}
			if time.Since(began) != 0 || n.count("GET storage/object") != 20 || b.State().Failures != 0 {
				t.Errorf("%d: %v, %d requests, %+v", status, time.Since(began), n.count("GET storage/object"), b.State())
			}
		})
	}
}

// TestBreakerForgets bounds what strangers make a breaker remember.
func TestBreakerForgets(t *testing.T) {
	b := upstream.NewBreaker(upstream.BreakerOptions{})
	s := b.Source(&scripted{forever: oci.ErrUnknown})
	for i := range 3000 {
		_ = get(t.Context(), s, upstream.Repo{Name: fmt.Sprint("r", i)})
	}
	if n := upstream.Remembered(b); n > 1100 {
		t.Errorf("%d circuits", n)
	}
}

// TestBreakerSurvivesAPanic: after a panic of Hello, the next attempt calls Hello again.
func TestBreakerSurvivesAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := fmt.Errorf("%w: reset", upstream.ErrUnreachable)
		hello := func() error { return down }
		b := upstream.NewBreaker(upstream.BreakerOptions{Name: "x", Probe: time.Second, Hello: func(context.Context) error { return hello() }})
		ask := func(result error) error {
			time.Sleep(2 * time.Second)
			return b.Do(func() error { return result })
		}
		if err := ask(down); !errors.Is(err, down) {
			t.Fatal(err)
		}
		if err := ask(down); !refusedByBreaker(err) {
			t.Fatalf("a registry that is down: %v", err)
		}
		hello = func() error { panic("hello") }
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic is lost")
				}
			}()
			_ = ask(nil)
		}()
		hello = func() error { return nil }
		if err := ask(nil); err != nil {
			t.Errorf("a registry that answers again: %v", err)
		}
	})
}

// TestBreakerClosesOnRefusedCredentials: a registry that refuses the credentials after an outage
// gives callers this reason. It is not down.
func TestBreakerClosesOnRefusedCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hello := unreachable()
		b := upstream.NewBreaker(upstream.BreakerOptions{Name: "x", Hello: func(context.Context) error {
			time.Sleep(time.Second)
			return hello
		}})
		src := &scripted{forever: unreachable()}
		source := b.Source(src)
		for range 2 {
			_ = get(t.Context(), source, upstream.Repo{Name: "app"})
		}
		if !b.State().Open {
			t.Fatal("not open")
		}
		hello, src.forever = upstream.ErrCredentials, upstream.ErrCredentials
		time.Sleep(5 * time.Second)
		if err := get(t.Context(), source, upstream.Repo{Name: "app"}); !errors.Is(err, upstream.ErrCredentials) || refusedByBreaker(err) {
			t.Errorf("the first: %v", err)
		}
		if b.State().Open {
			t.Errorf("open, although the registry refuses the credentials: %+v", b.State())
		}
		var callers sync.WaitGroup
		for range 5 { // during a hello, too
			callers.Go(func() {
				if err := get(t.Context(), source, upstream.Repo{Name: "app"}); !errors.Is(err, upstream.ErrCredentials) || refusedByBreaker(err) {
					t.Errorf("a later one: %v", err)
				}
			})
		}
		callers.Wait()
		hello, src.forever = nil, nil
		if err := get(t.Context(), source, upstream.Repo{Name: "app"}); err != nil || b.State().Failures != 0 {
			t.Errorf("with good credentials: %v, %+v", err, b.State())
		}
	})
}

// TestBreakerBlamesNoDeadlineOfACaller: a hello that only the caller's own deadline has ended says
// nothing about the registry.
func TestBreakerBlamesNoDeadlineOfACaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := true
		n := &network{fault: func(r *http.Request) (*http.Response, error) {
			if down {
				return nil, errors.New("reset")
			}
			select { // slow from now on
			case <-r.Context().Done():
				return nil, r.Context().Err()
			case <-time.After(2 * time.Second):
				return nil, nil
			}
		}}
		b, client, _ := n.guarded(t)
		source := b.Source(client)
		_ = get(t.Context(), source, upstream.Repo{Name: "app"})
		down = false
		time.Sleep(3 * time.Second)
		hurried, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := get(hurried, source, upstream.Repo{Name: "app"}); err == nil || refusedByBreaker(err) || n.count("GET registry.example/v2/") != 1 {
			t.Errorf("the hurried caller: %v, %q", err, n.asked)
		}
		if b.State().Open {
			t.Errorf("open: %+v", b.State())
		}
		if err := get(t.Context(), source, upstream.Repo{Name: "other"}); err != nil {
			t.Errorf("the next one: %v", err)
		}
	})
}
