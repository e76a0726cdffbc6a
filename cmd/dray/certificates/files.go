package certificates

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Files are the files with certificates that the configuration names. Each metric and each check
// reads them again, because operators replace them while dray runs.
type Files struct {
	files  []File
	expiry *prometheus.Desc
}

// NewFiles returns Files of the given files.
func NewFiles(files []File) Files {
	return Files{files, prometheus.NewDesc("dray_certificate_expiry_timestamp_seconds",
		"Time when the certificate of a listener expires, or the last to expire of those trusted for an upstream or for the tokens of an auth entry. A file that cannot be read has no value.",
		[]string{"listener", "upstream", "auth"}, nil)}
}

// Empty reports whether there is no file.
func (c Files) Empty() bool { return len(c.files) == 0 }

// Describe implements prometheus.Collector.
func (c Files) Describe(ch chan<- *prometheus.Desc) { ch <- c.expiry }

// Collect implements prometheus.Collector.
func (c Files) Collect(ch chan<- prometheus.Metric) {
	for _, f := range c.files {
		if cert, err := f.Current(time.Now()); err == nil {
			ch <- prometheus.MustNewConstMetric(c.expiry, prometheus.GaugeValue, float64(cert.NotAfter.Unix()), f.Listener, f.Upstream, f.Auth)
		}
	}
}

// Check returns the problems of all files.
func (c Files) Check(context.Context) error {
	var errs []error
	for _, f := range c.files {
		errs = append(errs, f.Check(time.Now()))
	}
	return errors.Join(errs...)
}

// Warn logs the problems of certificates once a day until ctx ends, and returns nil. It logs
// nothing at the start of dray, because the notices then report the same problems.
func (c Files) Warn(ctx context.Context, log *slog.Logger) error {
	day := time.NewTicker(24 * time.Hour)
	defer day.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-day.C:
		}
		for _, f := range c.files {
			if err := f.Check(time.Now()); err != nil {
				log.Warn(err.Error())
			}
		}
	}
}
