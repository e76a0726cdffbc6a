package ceilings

import "github.com/prometheus/client_golang/prometheus"

// Pauses returns the metric of pauses, for tests.
func (c *Ceilings) Pauses() *prometheus.CounterVec { return c.m.heard }
