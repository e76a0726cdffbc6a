package reload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"dray/cmd/dray/config"
	"dray/mirror/fixture"
)

// program is what a Reloader works on: the file, and what is applied of it.
type program struct {
	file           config.Config
	load, misfit   error
	apply          func(config.Config) error
	applied        []config.Config
	level          slog.LevelVar
	log            fixture.Log
	checked, loads int
}

func (p *program) reloader() *Reloader {
	return New(Options{
		Source: Source{
			Load:    func() (config.Config, error) { p.loads++; return p.file, p.load },
			Notices: func(c config.Config) []string { return slices.Clone(c.Admin.Hosts) },
			Level:   &p.level,
		},
		Check: func(config.Config) error { p.checked++; return p.misfit },
		Apply: func(_ context.Context, c config.Config) error {
			p.applied = append(p.applied, c)
			if p.apply != nil {
				return p.apply(c)
			}
			return nil
		},
		Running: p.file, Logger: slog.New(slog.NewTextHandler(&p.log, nil)),
	})
}

// Each failure leaves what was in force, and is told; afterwards a reload works as before.
func TestFailures(t *testing.T) {
	failed := errors.New("no good")
	for name, fail := range map[string]func(p *program, err error){
		"file":  func(p *program, err error) { p.load = err },
		"check": func(p *program, err error) { p.misfit = err },
		"apply": func(p *program, err error) { p.apply = func(config.Config) error { return err } },
	} {
		p := &program{}
		r := p.reloader()
		p.file.Log = config.Log{Level: config.LogDebug, Format: config.LogJSON}
		fail(p, failed)
		if _, err := r.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "no good") || !strings.Contains(p.log.String(), "no good") {
			t.Errorf("%s: %v\n%s", name, err, &p.log)
		}
		if testutil.ToFloat64(r.successful) != 0 || p.level.Level() != slog.LevelInfo {
			t.Errorf("%s: %v, %s", name, testutil.ToFloat64(r.successful), p.level.Level())
		}
		fail(p, nil)
		got, err := r.Reload(t.Context())
		if err != nil || fmt.Sprint(got.Changed, got.Pending) != "[log.level] [log.format]" || p.level.Level() != slog.LevelDebug || testutil.ToFloat64(r.successful) != 1 {
			t.Errorf("%s: %+v, %v, %s", name, got, err, p.level.Level())
		}
		if last := p.applied[len(p.applied)-1].Log; last.Level != config.LogDebug || last.Format != "" {
			t.Errorf("%s: applied %+v", name, last)
		}
	}
}

// Nothing is applied if nothing changes at once, and notices are given once.
func TestNothingToApply(t *testing.T) {
	p := &program{}
	p.file.Admin.Hosts = []string{"old"}
	r := p.reloader()
	p.file.Log.Format = config.LogJSON
	if got, err := r.Reload(t.Context()); err != nil || len(got.Changed) > 0 || len(got.Pending) != 1 || len(p.applied)+p.checked > 0 {
		t.Errorf("%+v, %v, applied %v", got, err, p.applied)
	}
	p.file.Admin.Hosts = []string{"old", "new"}
	for _, want := range []string{"[new]", "[]"} {
		if got, err := r.Reload(t.Context()); err != nil || fmt.Sprint(got.Notices) != want {
			t.Errorf("%+v, %v, want %s", got, err, want)
		}
	}
	if n := strings.Count(p.log.String(), "level=WARN msg=new"); n != 1 {
		t.Errorf("%d lines:\n%s", n, &p.log)
	}
}

// One reload runs at a time, Stop waits for it, and none begins after that.
func TestOneAtATime(t *testing.T) {
	p := &program{}
	r := p.reloader()
	var running, most, count atomic.Int32
	begun, release := make(chan bool, 100), make(chan bool)
	p.apply = func(config.Config) error {
		most.Store(max(most.Load(), running.Add(1)))
		begun <- true
		<-release
		p.file.Admin.Hosts = append([]string{"x"}, p.file.Admin.Hosts...) // for the next one
		running.Add(-1)
		count.Add(1)
		return nil
	}
	p.file.Admin.Hosts = []string{"x"}
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	signals := make(chan os.Signal, 1)
	signals <- os.Interrupt
	all.Go(func() { r.OnSignals(ctx, signals) })
	for range 3 {
		all.Go(func() {
			if _, err := r.Reload(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	for range 3 {
		<-begun
		release <- true
	}
	<-begun
	stopped := make(chan bool)
	go func() { r.Stop(); close(stopped) }()
	select {
	case <-stopped:
		t.Error("stopped during a reload")
	default:
	}
	release <- true
	<-stopped
	cancel()
	all.Wait()
	if most.Load() != 1 || count.Load() != 4 {
		t.Errorf("%d reloads, %d at a time", count.Load(), most.Load())
	}
	if _, err := r.Reload(t.Context()); err == nil || err.Error() != "dray is stopping" || p.loads != 4 {
		t.Errorf("%v after %d", err, p.loads)
	}
	if testutil.ToFloat64(r.successful) != 1 {
		t.Error("a refused reload counts as one that failed")
	}
}
