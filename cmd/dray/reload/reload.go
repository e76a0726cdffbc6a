package reload

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"dray/cmd/dray/config"
	"dray/cmd/dray/config/changes"
	"dray/mirror/admin/api"
)

// Source reads configurations.
type Source struct {
	// Load reads the configuration again, with the environment variables of the process. Its error
	// lists all problems.
	Load func() (config.Config, error)
	// Notices returns the notices about a configuration.
	Notices func(config.Config) []string
	// Level is the level of the log, which a reload sets.
	Level *slog.LevelVar
}

// Options configure a Reloader.
type Options struct {
	Source
	// Running is the configuration at the start.
	Running config.Config
	// Check returns the problems of a configuration that mixes running values and new ones.
	Check func(config.Config) error
	// Apply makes the program use a configuration that Check has accepted. After an error, nothing has
	// changed.
	Apply  func(context.Context, config.Config) error
	Logger *slog.Logger
}

// Reloader reloads the configuration. Its methods may be used concurrently.
type Reloader struct {
	o        Options
	stopping atomic.Bool

	mu      sync.Mutex // locked during a reload; guards running
	running config.Config

	successful, timestamp prometheus.Gauge
}

// New returns a Reloader.
func New(o Options) *Reloader {
	r := &Reloader{
		o: o, running: o.Running,
		successful: prometheus.NewGauge(prometheus.GaugeOpts{Name: "dray_config_last_reload_successful",
			Help: "0 if the last reload of the configuration failed, so that the former configuration is in force; otherwise 1."}),
		timestamp: prometheus.NewGauge(prometheus.GaugeOpts{Name: "dray_config_last_reload_success_timestamp_seconds",
			Help: "Unix time at which dray last read a configuration that it could use, at its start or by a reload."}),
	}
	r.succeeded()
	return r
}

func (r *Reloader) succeeded() {
	r.successful.Set(1)
	r.timestamp.SetToCurrentTime()
}

// Collectors returns the metrics of reloads.
func (r *Reloader) Collectors() []prometheus.Collector {
	return []prometheus.Collector{r.successful, r.timestamp}
}

// Stop makes further reloads fail, and waits until a running reload has ended.
func (r *Reloader) Stop() {
	r.stopping.Store(true)
	r.mu.Lock()
	defer r.mu.Unlock()
}

// OnSignals reloads for each signal that arrives, until ctx ends.
func (r *Reloader) OnSignals(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			_, _ = r.Reload(ctx) // logs the error
		}
	}
}

// Reload reads and applies the configuration, even if ctx ends, and logs the result. Its error is
// an *[api.Error] that lists all problems. After an error, nothing has changed.
func (r *Reloader) Reload(ctx context.Context) (api.Reloaded, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping.Load() {
		return api.Reloaded{}, api.Errorf(api.CodeConflict, "dray is stopping")
	}
	done, err := r.reload(context.WithoutCancel(ctx))
	if err != nil {
		r.successful.Set(0)
		r.o.Logger.Error("the configuration was not reloaded; the former one stays in force", "error", err)
		return api.Reloaded{}, err
	}
	r.succeeded()
	r.log(done)
	return done, nil
}

// reload does the work of Reload. The caller holds mu.
func (r *Reloader) reload(ctx context.Context) (api.Reloaded, error) {
	file, err := r.o.Load()
	if err != nil {
		return api.Reloaded{}, api.Errorf(api.CodeConflict, "the configuration is not valid, so the former one stays in force:\n%v", err)
	}
	merged := changes.Merge(r.running, file)
	done := api.Reloaded{Changed: append([]string{}, merged.Changed...), Pending: append([]string{}, merged.Pending...), Notices: r.news(file)}
	if len(merged.Changed) == 0 {
		r.running = merged.Config
		return done, nil
	}
	// The file is valid as a whole. But the new values that this reload would apply may not fit the
	// running values that stay until a restart.
	if err := r.o.Check(merged.Config); err != nil {
		return api.Reloaded{}, api.Errorf(api.CodeConflict,
			"the configuration is valid, but needs a restart: without one, dray cannot change %s, and the rest of the file does not fit the former values:\n%v", strings.Join(merged.Pending, ", "), err)
	}
	if err := r.o.Apply(ctx, merged.Config); err != nil {
		return api.Reloaded{}, api.Errorf(api.CodeConflict, "the configuration cannot be used, so the former one stays in force: %v", err)
	}
	r.running = merged.Config
	r.o.Level.Set(r.running.Log.Level.Level())
	return done, nil
}

// news returns the notices about the given configuration, without the notices that the running
// configuration also has.
func (r *Reloader) news(file config.Config) []string {
	former := r.o.Notices(r.running)
	return slices.DeleteFunc(r.o.Notices(file), func(n string) bool { return slices.Contains(former, n) })
}

func (r *Reloader) log(done api.Reloaded) {
	r.o.Logger.Info("the configuration was reloaded", "changed", strings.Join(done.Changed, ", "), "takes_effect_at_next_start", strings.Join(done.Pending, ", "))
	for _, n := range done.Notices {
		r.o.Logger.Warn(n)
	}
}
