package pulls

import (
	"cmp"
	"container/list"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Names of the counters and their labels, for packages that read them.
const (
	// Total counts pulls by LabelUpstream.
	Total = "dray_image_pulls_total"
	// Detailed counts pulls by LabelUpstream, LabelRepository and LabelImage.
	Detailed = "dray_image_pulls_detailed_total"

	LabelUpstream   = "upstream"
	LabelRepository = "repository" // registry host and repository
	LabelImage      = "image"      // tag or digest; empty unless Detail is PerImage

	// Other is the label value of repositories and images beyond MaxSeries.
	Other = "other"
)

// Detail selects the labels, besides the upstream, by which pulls are counted.
type Detail string

// The details.
const (
	None          Detail = "none"
	PerRepository Detail = "repository"
	PerImage      Detail = "image"
)

// Options configure [New].
type Options struct {
	// Detail sets the labels of Detailed. Empty means None.
	Detail Detail
	// MaxSeries bounds the series of Detailed, except Other; 0 means 100. Each series costs memory,
	// and money if it is published to CloudWatch.
	MaxSeries int
	// Idle is how long a series must be unchanged before another series may replace it; 0 means 15
	// minutes. A program that reads the counters must do so at least once in this time, or it can
	// miss pulls.
	Idle time.Duration
}

// Pulls counts pulls. Its methods may be called concurrently.
type Pulls struct {
	o Options

	total    *prometheus.CounterVec
	detailed *prometheus.CounterVec

	mu     sync.Mutex // guards series and order, and keeps pulls from being counted in a removed series
	series map[labels]*list.Element
	order  *list.List // of *used, the latest first
}

type labels struct{ upstream, repository, image string }

type used struct {
	labels labels
	at     time.Time
}

// New returns counters without pulls.
func New(o Options) *Pulls {
	o.Detail, o.MaxSeries, o.Idle = cmp.Or(o.Detail, None), cmp.Or(o.MaxSeries, 100), cmp.Or(o.Idle, 15*time.Minute)
	return &Pulls{
		o: o,
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: Total,
			Help: "Images that clients pulled: manifests that dray sent in answer to a GET.",
		}, []string{LabelUpstream}),
		detailed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: Detailed,
			Help: "Images that clients pulled, by repository and, if cloudwatch.dimensions is image, by tag or digest; pulls beyond cloudwatch.max_series count as other.",
		}, []string{LabelUpstream, LabelRepository, LabelImage}),
		series: map[labels]*list.Element{},
		order:  list.New(),
	}
}

// Inc counts one pull. repo is the repository at the upstream, and reference is a tag or digest.
// host is the registry's name. If host is empty, the value of LabelRepository has no registry name.
func (p *Pulls) Inc(upstream, host, repo, reference string) {
	p.total.WithLabelValues(upstream).Inc()
	if p.o.Detail == None {
		return
	}
	l := labels{upstream: upstream, repository: repo}
	if host != "" {
		l.repository = host + "/" + repo
	}
	if p.o.Detail == PerImage {
		l.image = reference
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.allow(l, time.Now()) {
		l.repository = Other
		if p.o.Detail == PerImage {
			l.image = Other
		}
	}
	p.detailed.WithLabelValues(l.upstream, l.repository, l.image).Inc()
}

// allow reports whether l has a series, or gets a new one. To make room for a new series, it may
// remove the oldest idle series. The caller holds mu.
func (p *Pulls) allow(l labels, now time.Time) bool {
	if e, ok := p.series[l]; ok {
		e.Value.(*used).at = now
		p.order.MoveToFront(e)
		return true
	}
	if len(p.series) >= p.o.MaxSeries {
		e := p.order.Back()
		oldest := e.Value.(*used)
		if now.Sub(oldest.at) < p.o.Idle {
			return false
		}
		p.order.Remove(e)
		delete(p.series, oldest.labels)
		p.detailed.DeleteLabelValues(oldest.labels.upstream, oldest.labels.repository, oldest.labels.image)
	}
	p.series[l] = p.order.PushFront(&used{l, now})
	return true
}

// Collectors returns the counters.
func (p *Pulls) Collectors() []prometheus.Collector {
	return []prometheus.Collector{p.total, p.detailed}
}
