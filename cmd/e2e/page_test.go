package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"dray/mirror/admin"
	"dray/mirror/admin/api"
	operators "dray/mirror/admin/page"
)

// screenshots, if set, is the directory that gets pictures of the page for operators.
var screenshots = flag.String("screenshots", "", "write pictures of the page for operators to this directory")

// browserFlags keep Chromium from talking to anybody but the page, and let it run as root.
var browserFlags = []string{"no-sandbox", "disable-gpu", "disable-quic", "disable-background-networking", "disable-component-update", "disable-sync"}

// newBrowser starts Chromium with a profile of its own, which chromedp creates and removes.
// Contexts for tabs are made of the context that it returns. It ends a browser that hangs.
func newBrowser(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(need(t, "chromium")))
	for _, name := range browserFlags {
		options = append(options, chromedp.Flag(name, true))
	}
	ctx, late := context.WithTimeout(context.Background(), 15*time.Minute)
	t.Cleanup(late)
	ctx, stop := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(stop)
	ctx, quit := chromedp.NewContext(ctx)
	t.Cleanup(quit)
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatalf("Chromium does not start: %v", err)
	}
	return ctx
}

// tab is a tab of a browser, with what went wrong in it.
type tab struct {
	t    *testing.T
	ctx  context.Context
	base string

	mu       sync.Mutex
	problems []string
}

func newTab(t *testing.T, browser context.Context, base string) *tab {
	t.Helper()
	ctx, quit := chromedp.NewContext(browser)
	t.Cleanup(quit)
	b := &tab{t: t, ctx: ctx, base: base}
	err := chromedp.Listen(ctx, func(ev any) {
		switch e := ev.(type) {
		case *log.EventEntryAdded: // refusals by the policy are among them
			if level := string(e.Entry.Level); level == "warning" || level == "error" {
				b.problem("log: %s %s: %s (%s)", level, e.Entry.Source, e.Entry.Text, e.Entry.URL)
			}
		case *runtime.EventConsoleAPICalled:
			b.problem("console.%s", e.Type)
		case *runtime.EventExceptionThrown:
			b.problem("exception: %v", e.ExceptionDetails)
		case *page.EventJavascriptDialogOpening:
			b.problem("dialog: %s", e.Message)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *tab) problem(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = append(b.problems, fmt.Sprintf(format, args...))
}

// calm reports as errors what went wrong since the last call.
func (b *tab) calm(what string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.problems {
		b.t.Errorf("%s: %s", what, p)
	}
	b.problems = nil
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// open opens a page.
func (b *tab) open(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base + path))
}

// command sends a command of the DevTools protocol.
func command[P any](c cdp.Command[P, cdp.Empty], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	})
}

// evaluate returns the value of an expression in the page. It also does so where scripts of the
// page do not run.
func evaluate[A any](b *tab, expression string) A {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[A](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression[:min(len(expression), 200)], err)
	}
	return v
}

// shows waits until an expression is true.
func (b *tab) shows(expression string) {
	b.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !evaluate[bool](b, expression); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("the page does not come to: %s", expression)
		}
	}
}

// look is how a page is looked at.
type look struct {
	name          string
	width, height int64
	scheme        string
}

var looks = []look{{"light", 1280, 900, "light"}, {"dark", 1280, 900, "dark"}, {"phone", 320, 640, "light"}, {"phone-dark", 320, 640, "dark"}}

func (b *tab) as(l look) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(l.width, l.height),
		command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: l.scheme}}}))
}

// pagePaths are the addresses of all kinds of pages.
var pagePaths = []string{
	"/", "/?time=7d", "/ui/live", "/ui/images", "/ui/images?q=checkout&sort=size&page=2", "/ui/images?q=nothing-is-so", "/ui/image?name=docker.io/library/postgres:17.2-bookworm",
	"/ui/pushes", "/ui/savings", "/ui/fleet", "/ui/configuration", "/ui/missing",
}

// servePage serves the page for operators as the admin listener does.
func servePage(t *testing.T, s operators.Sources) string {
	t.Helper()
	ending, end := context.WithCancel(context.Background())
	server := httptest.NewServer(admin.NewHandler(admin.Options{
		Gatherer: prometheus.NewRegistry(), Page: operators.New(s),
		API: []admin.Endpoint{admin.Watch("live/events", ending, func(ctx context.Context, _ url.Values) iter.Seq2[api.Live, error] {
			return func(yield func(api.Live, error) bool) {
				tick := time.NewTicker(100 * time.Millisecond)
				defer tick.Stop()
				for yield(s.Live(), nil) {
					select {
					case <-ctx.Done():
						return
					case <-tick.C:
					}
				}
			}
		})},
	}))
	t.Cleanup(func() { end(); server.CloseClientConnections(); server.Close() })
	return server.URL
}

// TestPageInBrowser shows the page in Chromium.
func TestPageInBrowser(t *testing.T) {
	browser := newBrowser(t)
	base := servePage(t, demonstration(time.Now().UTC()))
	t.Run("accessible", func(t *testing.T) { testPageAccessible(t, newTab(t, browser, base)) })
	t.Run("without script", func(t *testing.T) { testPageWithoutScript(t, newTab(t, browser, base)) })
	t.Run("keyboard", func(t *testing.T) { testPageKeyboard(t, newTab(t, browser, base)) })
	t.Run("updates", func(t *testing.T) { testPageUpdates(t, browser) })
	t.Run("hostile", func(t *testing.T) { testPageHostile(t, browser) })
	if *screenshots != "" {
		t.Run("pictures", func(t *testing.T) { takePictures(newTab(t, browser, base)) })
	}
}

// finding is what axe has found.
type finding struct {
	ID, Impact, Help string
	Nodes            []struct {
		HTML, FailureSummary string
	}
}

// testPageAccessible: no page breaks a rule of axe that is serious or critical, nor the content
// security policy, nor is it wider than the screen.
func testPageAccessible(t *testing.T, b *tab) {
	axe := string(read(t, needAxe(t)))
	for _, l := range looks {
		b.as(l)
		for _, path := range pagePaths {
			b.open(path)
			if path == "/ui/missing" { // Chromium logs every answer that is an error
				b.mu.Lock()
				b.problems = slices.DeleteFunc(b.problems, func(p string) bool { return strings.Contains(p, "404 (Not Found)") })
				b.mu.Unlock()
			}
			b.accessible(l, path, axe)
		}
	}
}

// accessible reports as errors what is wrong with the page that is open, in a look: rules of axe
// that it breaks, refusals by its policy, and that it is wider than the screen. axe is the script
// of axe.
func (b *tab) accessible(l look, path, axe string) {
	b.t.Helper()
	what := l.name + " " + path
	if w := evaluate[int64](b, `document.documentElement.scrollWidth`); w > l.width {
		b.t.Errorf("%s is %d pixels wide: %s", what, w, evaluate[string](b, `[...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > innerWidth).map((e) => e.outerHTML.slice(0, 90)).slice(-3).join("\n")`))
	}
	b.calm(what)
	evaluate[bool](b, axe+"; true")
	text := evaluate[string](b, `axe.run(document, {resultTypes: ["violations"]}).then((r) => JSON.stringify({violations: r.violations, passes: r.passes.length}))`)
	var found struct {
		Violations []finding
		Passes     int
	}
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		b.t.Fatal(err)
	}
	for _, f := range found.Violations {
		if f.Impact == "serious" || f.Impact == "critical" {
			for _, n := range f.Nodes {
				b.t.Errorf("%s: axe: %s (%s): %s\n%s\n%s", what, f.ID, f.Impact, f.Help, n.HTML, n.FailureSummary)
			}
		}
	}
	if found.Passes < 10 {
		b.t.Errorf("%s: axe has looked at nothing: %d rules are kept", what, found.Passes)
	}
	b.mu.Lock()
	b.problems = nil // those of axe itself
	b.mu.Unlock()
}

// picture writes what a tab shows to a file in the directory for pictures, if there is one.
func (b *tab) picture(name string) {
	b.t.Helper()
	if *screenshots == "" {
		return
	}
	picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	write(b.t, filepath.Join(*screenshots, name+".png"), picture)
}

// needAxe returns the file of axe-core.
func needAxe(t *testing.T) string {
	t.Helper()
	path := named(t, "axe-core-", "/axe.min.js")
	if path == "" {
		lacking(t, "axe-core is not installed in the version of .ci/env; make install-test-tools does that")
	}
	return path
}

// words are the words of the page, without what only the script shows, and without times.
const words = `[...document.querySelectorAll("main *")].filter((e) => e.childElementCount === 0 && !e.closest("time, .asof, .trouble, .small, .state")).map((e) => e.textContent.trim()).filter((s) => s).join("\n")`

// testPageWithoutScript: without JavaScript all is there that is there with it.
func testPageWithoutScript(t *testing.T, b *tab) {
	for _, path := range pagePaths[:len(pagePaths)-1] {
		b.do(command(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{}))
		b.open(path)
		with := evaluate[string](b, words)
		b.do(command(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}))
		b.open(path)
		if without := evaluate[string](b, words); with != without || len(without) < 20 {
			t.Errorf("%s: with JavaScript:\n%s\nwithout:\n%s", path, with, without)
		}
		if evaluate[bool](b, `document.getElementById("pause").checkVisibility()`) {
			t.Errorf("%s has a button that does nothing", path)
		}
		b.calm(path)
	}
}

// TestDemonstrationStandsStill: the chart shows the same at any time, so that tests can compare two
// readings of a page.
func TestDemonstrationStandsStill(t *testing.T) {
	now := time.Now().UTC()
	s := demonstration(now)
	for _, length := range []time.Duration{24 * time.Hour, 7 * 24 * time.Hour} {
		at := now.Add(-length)
		first := s.History(at, now, 48)
		for _, later := range []time.Duration{time.Millisecond, 31 * time.Minute, 25 * time.Hour} {
			if diff := cmp.Diff(first, s.History(at.Add(later), now.Add(later), 48)); diff != "" {
				t.Errorf("%s, after %s:\n%s", length, later, diff)
			}
		}
	}
}

// testPageKeyboard: the Tab key reaches everything that can be used, in the order of the page, and
// what has the focus shows that.
func testPageKeyboard(t *testing.T, b *tab) {
	b.as(looks[0])
	const usable = `[...document.querySelectorAll("a[href], button, input, summary, [tabindex='0']")].filter((e) => e.checkVisibility() && e.type !== "hidden")`
	for _, path := range []string{"/", "/ui/images", "/ui/image?name=docker.io/library/postgres:17.2-bookworm", "/ui/configuration"} {
		b.open(path)
		evaluate[bool](b, `document.getElementById("pause").click(); true`) // so that nothing changes meanwhile
		evaluate[bool](b, `document.activeElement.blur(); `+usable+`.forEach((e, i) => { e.dataset.order = i; }); true`)
		n := evaluate[int](b, usable+".length")
		for i := range n {
			b.do(chromedp.KeyEvent("\t"))
			if got := evaluate[string](b, `document.activeElement.dataset.order ?? document.activeElement.outerHTML.slice(0, 80)`); got != fmt.Sprint(i) {
				t.Errorf("%s: Tab number %d leads to %s", path, i+1, got)
				break
			}
			if !evaluate[bool](b, `getComputedStyle(document.activeElement).outlineStyle !== "none"`) {
				t.Errorf("%s: the focus of %s cannot be seen", path, evaluate[string](b, `document.activeElement.outerHTML.slice(0, 80)`))
			}
		}
		if n < 12 {
			t.Errorf("%s has only %d things to use", path, n)
		}
		b.calm(path)
	}
}

// testPageUpdates: the page shows a pull that begins while it is open, and not while it is paused.
func testPageUpdates(t *testing.T, browser context.Context) {
	var pulls, asked atomic.Int64
	s := demonstration(time.Now().UTC())
	s.Live = func() api.Live {
		asked.Add(1)
		l := api.Live{At: time.Now().UTC(), Pulls: []api.LivePull{}, Pushes: []api.LivePush{}}
		for i := range pulls.Load() {
			l.Pulls = append(l.Pulls, api.LivePull{LiveEntry: api.LiveEntry{ID: uint64(i), Client: "10.0.0.1", Upstream: "ecr", Repository: fmt.Sprintf("team/app-%d", i), Reference: "v1", State: api.LiveActive, Last: l.At}})
		}
		return l
	}
	b := newTab(t, browser, servePage(t, s))
	b.open("/")
	const names = `[...document.querySelectorAll("#live a.name")].map((e) => e.textContent)`
	evaluate[bool](b, `document.querySelector("details").open = true; document.querySelector("#figures a").focus(); window.same = document.activeElement; true`)
	pulls.Store(1)
	b.shows(names + `.join() === "ecr/team/app-0:v1"`)
	pulls.Store(3)
	b.shows(names + `.length === 3`)
	if !evaluate[bool](b, `document.activeElement === window.same && document.querySelector("details").open`) {
		t.Error("an update takes the focus, or closes what was opened")
	}
	evaluate[bool](b, `document.getElementById("pause").click(); true`)
	b.shows(`document.getElementById("updates").textContent === "Paused"`)
	pulls.Store(0)
	before := asked.Load()
	for asked.Load() < before+3 { // asked by another client
		get(t, b.base+"/ui/live")
	}
	if n := evaluate[int](b, names+".length"); n != 3 {
		t.Errorf("a paused page shows %d pulls", n)
	}
	evaluate[bool](b, `document.getElementById("pause").click(); true`)
	b.shows(names + `.length === 0`)
	b.calm("updates")
}

// testPageHostile: names that are scripts, elsewhere, are text here, also when an update brings
// them.
func testPageHostile(t *testing.T, browser context.Context) {
	const hostile = `"'><script>window.ran = 1</script><img src=x onerror="window.ran = 2"><svg onload="window.ran = 3">javascript:window.ran=4`
	s := demonstration(time.Now().UTC())
	live := s.Live()
	for i := range live.Pulls {
		e := &live.Pulls[i].LiveEntry
		e.Client, e.User, e.Agent, e.Repository, e.Reference, e.Error, e.Failures = hostile, hostile, hostile, hostile, hostile, hostile, 1
	}
	s.Live = func() api.Live { return live }
	s.Images = func(context.Context) iter.Seq2[api.Image, error] {
		return func(yield func(api.Image, error) bool) {
			yield(api.Image{Upstream: "ecr", Repository: hostile, Tags: []string{hostile, hostile + "2"}, Digest: hostile}, nil)
		}
	}
	queue := s.Queue()
	for i := range queue.Pushes {
		p := &queue.Pushes[i]
		p.Repository, p.Reference, p.User, p.Error = hostile, hostile, hostile, hostile
	}
	s.Queue = func() api.Queued { return queue }
	b := newTab(t, browser, servePage(t, s))
	for _, path := range []string{"/", "/ui/live", "/ui/images", "/ui/images?q=" + url.QueryEscape(hostile), "/ui/image?name=" + url.QueryEscape(hostile), "/ui/pushes"} {
		b.open(path)
		if path == "/" || path == "/ui/live" { // wait for an update by the script
			b.shows(`document.getElementById("updates").textContent !== ""`)
		}
		if ran := evaluate[string](b, `String(window.ran)`); ran != "undefined" {
			t.Errorf("%s: script %s has run", path, ran)
		}
		if n := evaluate[int](b, `document.querySelectorAll("script, img, iframe, object, [onload], [onerror], a[href^='javascript']").length`); n != 2 { // one script, and the icon
			t.Errorf("%s has %d elements that could run or load something", path, n)
		}
		if !evaluate[bool](b, `document.documentElement.textContent.includes("<img src=x onerror=")`) {
			t.Errorf("%s does not show the name", path)
		}
		b.calm(path)
	}
}

// takePictures writes pictures of the pages, as docs/operating.md shows them.
func takePictures(b *tab) {
	for _, p := range []struct {
		name, path string
		look       look
		height     int64
	}{
		{"page-light", "/", looks[0], 1360}, {"page-dark", "/", looks[1], 1360}, {"page-images", "/ui/images", looks[0], 700},
		{"page-image", "/ui/image?name=docker.io/library/postgres:17.2-bookworm", looks[0], 900}, {"page-phone", "/", look{"phone", 390, 844, "light"}, 844}, {"page-fleet", "/ui/fleet", looks[1], 620},
	} {
		p.look.height = p.height
		b.as(p.look)
		b.open(p.path)
		b.picture(p.name)
	}
}

// get reads a page without a browser.
func get(t *testing.T, address string) {
	t.Helper()
	resp, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
}
