package main

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray/cmd/dray/config"
)

// certificates are the files with certificates that the configuration names. They are read whenever
// somebody asks, because they are replaced while dray runs.
type certificates struct {
	files  []config.CertificateFile
	expiry *prometheus.Desc
}

func newCertificates(files []config.CertificateFile) certificates {
	return certificates{files, prometheus.NewDesc("dray_certificate_expiry_timestamp_seconds",
		"Time when the certificate of a listener expires, or the last one that is trusted for an upstream or for the tokens of an auth entry. A file that cannot be read has no value.",
		[]string{"listener", "upstream", "auth"}, nil)}
}

// buildCertificates reports certificates that are not valid, or that soon expire: in a metric, in a
// check of /readyz, and once a day in the log.
func (g *graph) buildCertificates(context.Context) error {
	g.certificates = newCertificates(g.cfg.CertificateFiles())
	g.metrics.MustRegister(g.certificates)
	if len(g.certificates.files) > 0 {
		g.background["certificates"] = g.warnOfCertificates
	}
	return nil
}

// Describe implements prometheus.Collector.
func (c certificates) Describe(ch chan<- *prometheus.Desc) { ch <- c.expiry }

// Collect implements prometheus.Collector.
func (c certificates) Collect(ch chan<- prometheus.Metric) {
	for _, f := range c.files {
		if cert, err := f.Current(time.Now()); err == nil {
			ch <- prometheus.MustNewConstMetric(c.expiry, prometheus.GaugeValue, float64(cert.NotAfter.Unix()), f.Listener, f.Upstream, f.Auth)
		}
	}
}

// check returns the problems of all files.
func (c certificates) check(context.Context) error {
	var errs []error
	for _, f := range c.files {
		errs = append(errs, f.Check(time.Now()))
	}
	return errors.Join(errs...)
}

// warnOfCertificates logs the problems of certificates once a day until ctx ends, and returns nil.
// When dray starts, the notices report them.
func (g *graph) warnOfCertificates(ctx context.Context) error {
	day := time.NewTicker(24 * time.Hour)
	defer day.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-day.C:
		}
		for _, f := range g.certificates.files {
			if err := f.Check(time.Now()); err != nil {
				g.log.Warn(err.Error())
			}
		}
	}
}
