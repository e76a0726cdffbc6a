package certificates

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"dray/mirror/fixture"
)

// TestCertificatesAreWatched: dray tells once a day of a certificate that is near its end, and
// notices by itself that it was replaced.
func TestCertificatesAreWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		opts := options{hosts: []string{"localhost"}, outCert: filepath.Join(dir, "cert.pem"), outKey: filepath.Join(dir, "key.pem"), force: true}
		replace := func(made time.Time) {
			t.Helper()
			if _, err := writeCertificate(opts, made); err != nil {
				t.Fatal(err)
			}
		}
		log := &fixture.Log{}
		files := NewFiles([]File{{Listener: "main", Path: opts.outCert, Key: "tls.certificate"}})
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer stop()
		running.Go(func() { _ = files.Warn(ctx, slog.New(slog.NewTextHandler(log, nil))) })
		for _, tc := range []struct {
			made   time.Time
			days   int
			told   int
			health string
		}{
			{time.Now(), 300, 0, ""},
			{time.Now(), 33, 0, ""},
			{time.Now(), 5, 3, "expires on"},
			{time.Now(), 29, 29, "expired on"},
			{time.Now().AddDate(1, 0, 0), 2, 0, ""},
		} {
			replace(tc.made)
			log.Take()
			time.Sleep(time.Duration(tc.days) * 24 * time.Hour)
			synctest.Wait()
			if text := log.Take(); strings.Count(text, "level=WARN") != tc.told {
				t.Errorf("after %d days: want %d warnings:\n%s", tc.days, tc.told, text)
			}
			err := files.Check(t.Context())
			if (err != nil) != (tc.health != "") || err != nil && !strings.Contains(err.Error(), tc.health) {
				t.Errorf("after %d days: %v, want %q", tc.days, err, tc.health)
			}
			if got, want := testutil.ToFloat64(files), tc.made.AddDate(1, 0, 0).Unix(); got != float64(want) {
				t.Errorf("metric: %f, want %d", got, want)
			}
		}
	})
}

// A file is parsed once for each change, however often /readyz and the metrics are read. One that
// is missing is looked for each time.
func TestCertificatesAreParsedOnce(t *testing.T) {
	dir := t.TempDir()
	opts := options{hosts: []string{"localhost"}, outCert: filepath.Join(dir, "cert.pem"), outKey: filepath.Join(dir, "key.pem"), force: true}
	f := &file{File: File{Upstream: "hub", Path: opts.outCert, Key: "tls.ca_file"}}
	if _, err := f.get(); err == nil {
		t.Error("there is no file yet")
	}
	for _, made := range []time.Time{time.Now(), time.Now().AddDate(0, 0, 1)} {
		if _, err := writeCertificate(opts, made); err != nil {
			t.Fatal(err)
		}
		first, err := f.get()
		if err != nil || len(first) != 1 || first[0].NotBefore.Day() != made.Add(-time.Hour).UTC().Day() {
			t.Fatalf("%v, %v", first, err)
		}
		if again, err := f.get(); err != nil || again[0] != first[0] {
			t.Errorf("parsed again: %v", err)
		}
	}
	if err := os.Remove(opts.outCert); err != nil {
		t.Fatal(err)
	}
	if err := f.Check(time.Now()); err == nil || !strings.Contains(err.Error(), "cannot be used") {
		t.Errorf("a missing file: %v", err)
	}
}

// TestCertificateOverKey: the certificate does not replace the key, even with --force.
func TestCertificateOverKey(t *testing.T) {
	dir := t.TempDir()
	opts := options{hosts: []string{"localhost"}, outCert: dir + "/both.pem", outKey: dir + "/./both.pem", force: true}
	if _, err := writeCertificate(opts, time.Now()); err == nil || !strings.Contains(err.Error(), "name two files") {
		t.Error(err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("%v, %v", files, err)
	}
}
