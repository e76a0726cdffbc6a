package nodes

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dray/cmd/dray/usage"
)

// api answers each question for a DaemonSet with the next of some answers, and repeats the last.
func api(t *testing.T, answers ...string) (account string, asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/apis/apps/v1/namespaces/dray/daemonsets/undo" || r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("asked for %s with %q", r.URL.Path, r.Header.Get("Authorization"))
		}
		answer := answers[min(int(asked.Add(1))-1, len(answers)-1)]
		if status, found := map[string]int{"403": 403, "500": 500, "429": 429}[answer]; found {
			w.WriteHeader(status)
			return
		}
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(server.Close)
	host, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", host)
	t.Setenv("KUBERNETES_SERVICE_PORT", port)
	account = t.TempDir()
	for name, text := range map[string][]byte{"token": []byte("secret\n"), "namespace": []byte("dray"),
		"ca.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})} {
		if err := os.WriteFile(filepath.Join(account, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return account, asked
}

func set(generation, observed, desired, updated, ready string) string {
	return `{"metadata":{"generation":` + generation + `},"status":{"observedGeneration":` + observed + `,"desiredNumberScheduled":` + desired +
		`,"updatedNumberScheduled":` + updated + `,"numberReady":` + ready + `}}`
}

// TestWait waits for DaemonSets. Time passes by the pauses alone.
func TestWait(t *testing.T) {
	for name, tc := range map[string]struct {
		answers []string
		asked   int
		err     string
	}{
		"done at once":                  {[]string{set("1", "1", "3", "3", "3")}, 1, ""},
		"a node is late":                {[]string{set("1", "1", "3", "3", "2"), set("1", "1", "3", "3", "3")}, 2, ""},
		"not looked at yet":             {[]string{set("1", "0", "0", "0", "0"), set("1", "1", "2", "2", "2")}, 2, ""},
		"pods of its former form":       {[]string{set("2", "2", "2", "1", "2"), set("2", "2", "2", "2", "2")}, 2, ""},
		"no nodes":                      {[]string{set("1", "1", "0", "0", "0")}, 1, ""},
		"the API is away for a moment":  {[]string{"500", "429", "{", set("1", "1", "1", "1", "1")}, 4, ""},
		"refused":                       {[]string{"403"}, 1, "DaemonSet dray/undo: 403 Forbidden: the API refuses the request; let the service account get it"},
		"a node that never gets done":   {[]string{set("1", "1", "3", "3", "2")}, 6, "DaemonSet dray/undo: 2 of 3 nodes are done after 10s; kubectl -n dray get pods"},
		"the API stays away":            {[]string{"500"}, 6, "500 Internal Server Error after 10s"},
		"an answer of something else":   {[]string{`{"kind":"Status"}`}, 6, "0 of 0 nodes are done after 10s"},
		"one that has lost a node only": {[]string{set("1", "1", "2", "3", "2")}, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			account, asked := api(t, tc.answers...)
			now := time.Unix(0, 0)
			var out bytes.Buffer
			w := waiting{stdout: &out, stderr: io.Discard, name: "undo", account: account, timeout: 10 * time.Second,
				now: func() time.Time { return now }, pause: func(_ context.Context, d time.Duration) { now = now.Add(d) }}
			err := w.run(t.Context())
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("error %v, want %s", err, tc.err)
			}
			if err == nil && !strings.HasSuffix(out.String(), "nodes are done\n") {
				t.Errorf("printed %q", out.String())
			}
			if got := asked.Load(); got != int64(tc.asked) {
				t.Errorf("asked %d times, want %d", got, tc.asked)
			}
		})
	}
}

// TestNoCluster: outside of a pod, or in one without a token, the error says what is missing.
func TestNoCluster(t *testing.T) {
	account, _ := api(t, "403")
	for name, tc := range map[string]struct{ account, host, err string }{
		"no variables":  {account, "", "run dray setup nodes in a pod"},
		"no token":      {t.TempDir(), "localhost", "automountServiceAccountToken"},
		"a pod's files": {account, "localhost", ""},
	} {
		if _, err := inCluster(tc.account, tc.host, "443"); (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: %v, want %s", name, err, tc.err)
		}
	}
}

// TestHold: the subcommand stays until it is told to stop.
func TestHold(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		cmd := Command(io.Discard, io.Discard)
		cmd.SetArgs([]string{"--hold"})
		ended <- cmd.ExecuteContext(ctx)
	}()
	select {
	case err := <-ended:
		t.Fatalf("ended by itself: %v", err)
	default:
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, args := range [][]string{{}, {"--hold", "undo"}} {
		cmd := Command(io.Discard, io.Discard)
		cmd.SetArgs(args)
		cmd.SetErr(io.Discard)
		cmd.SilenceUsage = true
		if err := cmd.Execute(); !errors.Is(err, usage.Err) {
			t.Errorf("%q: %v", args, err)
		}
	}
}
