package certificates

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/mirror/reread"
)

// Files are the files with certificates that the configuration names. A file is parsed again when
// it has changed, because operators replace certificates while dray runs.
type Files struct {
	files  atomic.Pointer[[]*file]
	expiry *prometheus.Desc
}

// file is a File with its certificates.
type file struct {
	File
	certificates atomic.Pointer[reread.Value[[]*x509.Certificate]] // nil until the file was parsed for the first time
}

// get returns the certificates that the file has now.
func (f *file) get() ([]*x509.Certificate, error) {
	value := f.certificates.Load()
	if value == nil {
		var err error
		if value, err = reread.New(nil, f.parse, f.Path); err != nil {
			return nil, err
		}
		f.certificates.Store(value)
	}
	all, failure := value.Get()
	if failure != nil {
		return nil, failure.Err
	}
	return all, nil
}

// Check does the work of [File.Check]. It parses the file only if the file has changed.
func (f *file) Check(now time.Time) error {
	all, err := f.get()
	if err != nil {
		return f.problem("cannot be used: %v", err)
	}
	cert := f.current(all, now)
	switch {
	case now.Before(cert.NotBefore):
		return f.problem("of %s is not valid before %s, so %s until then", f.Path, date(cert.NotBefore), f.effect())
	case now.After(cert.NotAfter):
		return f.problem("of %s expired on %s, so %s; replace the file, and dray reads it again by itself", f.Path, date(cert.NotAfter), f.effect())
	case cert.NotAfter.Sub(now) <= NearEnd:
		return f.problem("of %s expires on %s; replace the file before, and dray reads it again by itself", f.Path, date(cert.NotAfter))
	}
	return nil
}

// NewFiles returns Files of the given files.
func NewFiles(files []File) *Files {
	c := &Files{expiry: prometheus.NewDesc("dray_certificate_expiry_timestamp_seconds",
		"Unix time at which a certificate expires. For a listener, this is its own certificate. For a file of authorities, it is the valid authority that expires last. Files that dray cannot read have no value.",
		[]string{"listener", "upstream", "auth"}, nil)}
	c.Replace(files)
	return c
}

// Replace makes c use the given files in place of the files that it has used so far.
func (c *Files) Replace(files []File) {
	all := make([]*file, len(files))
	for i, f := range files {
		all[i] = &file{File: f}
	}
	c.files.Store(&all)
}

// Empty reports whether there is no file.
func (c *Files) Empty() bool { return len(*c.files.Load()) == 0 }

// Describe implements prometheus.Collector.
func (c *Files) Describe(ch chan<- *prometheus.Desc) { ch <- c.expiry }

// Collect implements prometheus.Collector.
func (c *Files) Collect(ch chan<- prometheus.Metric) {
	for _, f := range *c.files.Load() {
		if all, err := f.get(); err == nil {
			end := f.current(all, time.Now()).NotAfter
			ch <- prometheus.MustNewConstMetric(c.expiry, prometheus.GaugeValue, float64(end.Unix()), f.Listener, f.Upstream, f.Auth)
		}
	}
}

// Check returns the problems of all files.
func (c *Files) Check(context.Context) error {
	var errs []error
	for _, f := range *c.files.Load() {
		errs = append(errs, f.Check(time.Now()))
	}
	return errors.Join(errs...)
}

// Warn logs the problems of certificates once a day until ctx ends, and returns nil. It logs
// nothing at the start of dray, because the notices at the start report the same problems.
func (c *Files) Warn(ctx context.Context, log *slog.Logger) error {
	day := time.NewTicker(24 * time.Hour)
	defer day.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-day.C:
		}
		for _, f := range *c.files.Load() {
			if err := f.Check(time.Now()); err != nil {
				log.Warn(err.Error())
			}
		}
	}
}
