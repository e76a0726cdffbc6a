package cloudwatch

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/prometheus/client_golang/prometheus"
)

// Client is the part of the CloudWatch client that this package uses.
type Client interface {
	PutMetricData(context.Context, *cloudwatch.PutMetricDataInput, ...func(*cloudwatch.Options)) (*cloudwatch.PutMetricDataOutput, error)
}

var _ Client = (*cloudwatch.Client)(nil)

// Series maps a Prometheus counter to a metric of CloudWatch.
type Series struct {
	// Counter is the name of the counter. A counter has one value for each combination of its
	// labels. Values whose labels give the same Dimensions are added up.
	Counter string
	// Metric is the name in CloudWatch.
	Metric string
	// Dimensions are the dimensions of the metric. CloudWatch bills each combination of values as a
	// metric. If the value of a label is empty, its dimension is left out.
	Dimensions []Dimension
	// Only is a filter: it maps the name of a label to those values of the label that are published.
	// If Only is nil, all values are published.
	Only map[string][]string
}

// Dimension maps a label of the counter to a dimension of the metric.
type Dimension struct {
	Label, Name string
}

// Options configure [New].
type Options struct {
	Client    Client
	Gatherer  prometheus.Gatherer
	Namespace string
	Series    []Series
	// Interval is the time between two publications; 0 means 1 minute. The data points have a
	// resolution of one minute in any case.
	Interval time.Duration
	// Timeout bounds one publication, with all its requests and their retries; 0 means 30 seconds.
	Timeout time.Duration
	// FlushTimeout bounds the last publication, at the end of Run; 0 means 5 seconds.
	FlushTimeout time.Duration
	// MaxPending bounds the data points that wait to be sent; 0 means 20,000.
	MaxPending int
	// Logger gets a message when publishing starts to fail, when it works again, and whenever the
	// counters cannot be read; nil discards.
	Logger *slog.Logger
}

// Publisher publishes counters. [Publisher.Run] does the work.
type Publisher struct {
	o Options

	// Only Run uses these:
	reader  reader
	pending []types.MetricDatum
	failing bool

	requests *prometheus.CounterVec
	dropped  prometheus.Counter
	waiting  prometheus.Gauge
}

// New returns a publisher.
func New(o Options) *Publisher {
	o.Interval = cmp.Or(o.Interval, time.Minute)
	o.Timeout = cmp.Or(o.Timeout, 30*time.Second)
	o.FlushTimeout = cmp.Or(o.FlushTimeout, 5*time.Second)
	o.MaxPending = cmp.Or(o.MaxPending, 20000)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return &Publisher{
		o:      o,
		reader: newReader(o.Gatherer, o.Series),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dray_cloudwatch_requests_total",
			Help: "Requests to CloudWatch, by outcome: ok, error (dray tries again later), refused (dray drops the data points).",
		}, []string{"outcome"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dray_cloudwatch_dropped_total",
			Help: "Data points that dray dropped, because too many waited or CloudWatch refused them.",
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "dray_cloudwatch_pending",
			Help: "Data points that wait for publication.",
		}),
	}
}

// Run publishes whenever the clock reaches a multiple of Interval, until ctx ends. Run then
// publishes once more, within FlushTimeout, and returns nil. Run can miss increments that come
// after the end of ctx, so stop the listeners before you end ctx.
func (p *Publisher) Run(ctx context.Context) error {
	for {
		now := time.Now()
		next := now.Truncate(p.o.Interval).Add(p.o.Interval)
		timer := time.NewTimer(next.Sub(now))
		select {
		case <-timer.C:
			p.collect(next.Add(-p.o.Interval))
			p.publish(ctx, p.o.Timeout)
		case <-ctx.Done():
			timer.Stop()
			p.collect(time.Now().Truncate(p.o.Interval))
			p.publish(context.WithoutCancel(ctx), p.o.FlushTimeout)
			return nil
		}
	}
}

// collect appends the increases since the last call as data points with the given time.
func (p *Publisher) collect(at time.Time) {
	increases, err := p.reader.read()
	if err != nil {
		p.o.Logger.Warn("reading the counters for CloudWatch failed; their increases are published when it succeeds", "error", err)
	}
	for _, i := range increases {
		p.pending = append(p.pending, i.datum(at))
	}
	if over := len(p.pending) - p.o.MaxPending; over > 0 {
		p.drop(over)
	}
	p.waiting.Set(float64(len(p.pending)))
}

// drop drops the oldest n data points.
func (p *Publisher) drop(n int) {
	p.dropped.Add(float64(n))
	p.pending = append(p.pending[:0], p.pending[n:]...)
}

// publish sends the waiting data points. If CloudWatch refuses a request, publish drops the data
// points of that request and goes on. After any other error, it stops.
func (p *Publisher) publish(ctx context.Context, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer func() { p.waiting.Set(float64(len(p.pending))) }()
	for len(p.pending) > 0 {
		batch := p.pending[:batchLen(p.pending)]
		_, err := p.o.Client.PutMetricData(ctx, &cloudwatch.PutMetricDataInput{
			Namespace:  &p.o.Namespace,
			MetricData: batch,
		})
		switch {
		case err == nil:
			p.requests.WithLabelValues("ok").Inc()
			p.pending = append(p.pending[:0:0], p.pending[len(batch):]...)
			p.note(nil)
		case refused(err):
			p.requests.WithLabelValues("refused").Inc()
			p.drop(len(batch))
			p.note(err)
		default:
			p.requests.WithLabelValues("error").Inc()
			p.note(err)
			return
		}
	}
}

// refused reports whether the same data would cause the error again.
func refused(err error) bool {
	if _, ok := errors.AsType[*types.InvalidParameterValueException](err); ok {
		return true
	}
	if _, ok := errors.AsType[*types.InvalidParameterCombinationException](err); ok {
		return true
	}
	_, ok := errors.AsType[*types.MissingRequiredParameterException](err)
	return ok
}

// note logs the first of several errors in a row, and the first success after them.
func (p *Publisher) note(err error) {
	switch {
	case err != nil && !p.failing:
		p.o.Logger.Warn("publishing to CloudWatch failed, retrying every interval",
			"error", err, "interval", p.o.Interval, "pending", len(p.pending))
	case err == nil && p.failing:
		p.o.Logger.Info("publishing to CloudWatch succeeded again")
	}
	p.failing = err != nil
}

// Collectors returns the metrics of the publisher.
func (p *Publisher) Collectors() []prometheus.Collector {
	return []prometheus.Collector{p.requests, p.dropped, p.waiting}
}
