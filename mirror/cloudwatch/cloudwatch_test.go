package cloudwatch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	aws "github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"dray/mirror/cloudwatch"
	"dray/mirror/pulls"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	namespace = "Custom/ecr_reverse_proxy"
	metric    = "ECRImagePulls"
	host      = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
)

// fake takes what is published, or refuses it.
type fake struct {
	mu    sync.Mutex
	sizes []int    // of all requests
	data  []string // of accepted requests
	err   error
	hang  bool
}

func (f *fake) set(err error, hang bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, f.hang = err, hang
}

// asked returns the sizes of the requests since it was last called.
func (f *fake) asked() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	sizes := f.sizes
	f.sizes = nil
	return sizes
}

func (f *fake) taken() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	taken := f.data
	f.data = nil
	return taken
}

func (f *fake) PutMetricData(ctx context.Context, in *aws.PutMetricDataInput, _ ...func(*aws.Options)) (*aws.PutMetricDataOutput, error) {
	f.mu.Lock()
	f.sizes = append(f.sizes, len(in.MetricData))
	err, hang := f.err, f.hang
	f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range in.MetricData {
		f.data = append(f.data, *in.Namespace+" "+render(d))
	}
	return &aws.PutMetricDataOutput{}, nil
}

// render shows a data point: time metric{dimensions} value unit/resolution.
func render(d types.MetricDatum) string {
	var dims []string
	for _, dim := range d.Dimensions {
		dims = append(dims, *dim.Name+"="+*dim.Value)
	}
	return fmt.Sprintf("%s %s{%s} %g %s/%d", d.Timestamp.UTC().Format("15:04:05"), *d.MetricName, strings.Join(dims, ","), *d.Value, d.Unit, *d.StorageResolution)
}

// world is a running publisher over pulls, 10 seconds into a minute.
type world struct {
	*fake
	pulls     *pulls.Pulls
	publisher *cloudwatch.Publisher
	stop      func()
}

func start(t *testing.T, detail pulls.Detail, o cloudwatch.Options) *world {
	w := &world{fake: &fake{}, pulls: pulls.New(pulls.Options{Detail: detail, MaxSeries: 5000})}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(w.pulls.Collectors()...)
	o.Client, o.Namespace = w.fake, namespace
	if o.Gatherer == nil {
		o.Gatherer = reg
	}
	if o.Series == nil {
		o.Series = cloudwatch.PullSeries(metric, detail)
	}
	w.publisher = cloudwatch.New(o)
	time.Sleep(10 * time.Second) // virtual time begins on a full minute
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.publisher.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	synctest.Wait()
	return w
}

func (w *world) pull(times int, repo, ref string) {
	for range times {
		w.pulls.Inc("ecr", host, repo, ref)
	}
}

func minute() { time.Sleep(time.Minute); synctest.Wait() }

func (w *world) want(t *testing.T, want ...string) {
	t.Helper()
	for i := range want {
		want[i] = namespace + " " + want[i]
	}
	if diff := cmp.Diff(want, w.taken()); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
}

func TestByTheMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, pulls.None, cloudwatch.Options{})
		w.pull(500, "team/app", "v1")
		w.pulls.Inc("hub", "docker.io", "library/nginx", "1")
		if len(w.asked()) != 0 {
			t.Fatal("a pull caused a call")
		}
		minute()
		w.want(t, "00:00:00 ECRImagePulls{} 501 Count/60")
		minute() // nothing happened, nothing is published
		w.want(t)
		w.pull(2, "team/app", "v1")
		minute()
		w.want(t, "00:02:00 ECRImagePulls{} 2 Count/60")
		w.pull(3, "team/app", "v1")
		w.stop() // the rest goes before the end
		w.want(t, "00:03:00 ECRImagePulls{} 3 Count/60")
		if n := len(w.asked()); n != 3 {
			t.Errorf("%d calls", n)
		}
	})
}

func TestDimensions(t *testing.T) {
	for detail, want := range map[pulls.Detail][]string{
		pulls.PerRepository: {
			"00:00:00 ECRImagePulls{} 6 Count/60",
			"00:00:00 ECRImagePulls{Repository=" + host + "/app} 5 Count/60",
			"00:00:00 ECRImagePulls{Repository=" + host + "/base} 1 Count/60",
		},
		pulls.PerImage: {
			"00:00:00 ECRImagePulls{} 6 Count/60",
			"00:00:00 ECRImagePulls{Repository=" + host + "/app,Image=v?2} 3 Count/60",
			"00:00:00 ECRImagePulls{Repository=" + host + "/app,Image=v1} 2 Count/60",
			"00:00:00 ECRImagePulls{Repository=" + host + "/base,Image=v1} 1 Count/60",
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := start(t, detail, cloudwatch.Options{Series: cloudwatch.PullSeries(metric, detail, "ecr", "ecr2")})
			w.pull(2, "app", "v1")
			w.pull(3, "app", "v\n2") // CloudWatch would refuse the whole request
			w.pull(1, "base", "v1")
			w.pulls.Inc("hub", "docker.io", "library/nginx", "1") // not chosen
			minute()
			w.want(t, want...)
			w.stop()
		})
	}
}

// TestFailedMinutes shows that minutes that could not be published are, later,
// as what they were.
func TestFailedMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := start(t, pulls.None, cloudwatch.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		w.set(errors.New("connection refused"), false)
		for i := range 3 {
			w.pull(i+1, "app", "v1")
			minute()
		}
		w.want(t)
		if got := testutil.ToFloat64(w.publisher.Collectors()[2]); got != 3 {
			t.Errorf("%v data points wait", got)
		}
		w.set(nil, false)
		w.pull(9, "app", "v1")
		minute()
		w.want(t,
			"00:00:00 ECRImagePulls{} 1 Count/60",
			"00:01:00 ECRImagePulls{} 2 Count/60",
			"00:02:00 ECRImagePulls{} 3 Count/60",
			"00:03:00 ECRImagePulls{} 9 Count/60")
		w.stop()
		if n := strings.Count(log.String(), "\n"); n != 2 || strings.Count(log.String(), "level=WARN") != 1 {
			t.Errorf("one failure and one recovery were logged as\n%s", log.String())
		}
		if got := testutil.ToFloat64(w.publisher.Collectors()[2]); got != 0 {
			t.Errorf("%v data points wait", got)
		}
	})
}

func TestPendingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, pulls.None, cloudwatch.Options{MaxPending: 2})
		w.set(errors.New("down"), false)
		for i := range 5 {
			w.pull(i+1, "app", "v1")
			minute()
		}
		if got := testutil.ToFloat64(w.publisher.Collectors()[1]); got != 3 {
			t.Errorf("%v data points counted as dropped", got)
		}
		w.set(nil, false)
		minute()
		w.want(t, "00:03:00 ECRImagePulls{} 4 Count/60", "00:04:00 ECRImagePulls{} 5 Count/60")
		w.stop()
	})
}

// TestRefused checks that data CloudWatch does not want is not sent for ever.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, pulls.None, cloudwatch.Options{})
		w.set(fmt.Errorf("operation error: %w", &types.InvalidParameterValueException{}), false)
		w.pull(1, "app", "v1")
		minute()
		w.set(nil, false)
		w.pull(2, "app", "v1")
		minute()
		w.want(t, "00:01:00 ECRImagePulls{} 2 Count/60")
		if got := testutil.ToFloat64(w.publisher.Collectors()[1]); got != 1 {
			t.Errorf("%v data points counted as dropped", got)
		}
		w.stop()
	})
}

// TestHangs checks that neither a minute nor the end waits for long.
func TestHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, pulls.None, cloudwatch.Options{})
		w.set(nil, true)
		w.pull(1, "app", "v1")
		minute()
		w.pull(2, "app", "v1")
		minute()
		begun := time.Now()
		w.stop()
		if took := time.Since(begun); took > 35*time.Second {
			t.Errorf("the end took %v", took)
		}
		if n := len(w.asked()); n != 3 {
			t.Errorf("%d calls", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := start(t, pulls.None, cloudwatch.Options{})
		w.set(nil, true)
		w.pull(1, "app", "v1")
		begun := time.Now()
		w.stop()
		if took := time.Since(begun); took != 5*time.Second {
			t.Errorf("the last flush took %v", took)
		}
	})
}

func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, pulls.PerImage, cloudwatch.Options{})
		for i := range 2500 {
			w.pull(1, "app", fmt.Sprint("v", i))
		}
		minute()
		if diff := cmp.Diff([]int{1000, 1000, 501}, w.asked()); diff != "" {
			t.Error(diff)
		}
		if n := len(w.taken()); n != 2501 {
			t.Errorf("%d data points", n)
		}
		// Long names: a request stays below a megabyte.
		for i := range 1000 {
			w.pull(1, strings.Repeat("r", 1100), fmt.Sprintf("%d%s", i, strings.Repeat("i", 1100)))
		}
		minute()
		for _, n := range w.asked() {
			if n*2048 > 1<<20 {
				t.Errorf("%d data points of two kilobytes in one request", n)
			}
		}
		if n := len(w.taken()); n != 1001 {
			t.Errorf("%d data points", n)
		}
		w.stop()
	})
}

// partial fails as a registry does: with what it could gather.
type partial struct {
	prometheus.Gatherer
	hides atomic.Bool
}

func (p *partial) Gather() ([]*dto.MetricFamily, error) {
	families, err := p.Gatherer.Gather()
	if !p.hides.Load() {
		return families, err
	}
	var left []*dto.MetricFamily
	for _, f := range families {
		if f.GetName() != "c_total" {
			left = append(left, f)
		}
	}
	return left, errors.New("collector failed")
}

// TestCounters checks what counters do over time: fail to be read, vanish and
// begin again.
func TestCounters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c_total"}, []string{"l"})
		gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "g"})
		reg.MustRegister(vec, gauge)
		gauge.Set(7)
		gatherer := &partial{Gatherer: reg}
		w := start(t, pulls.None, cloudwatch.Options{Gatherer: gatherer, Series: []cloudwatch.Series{
			{Counter: "c_total", Metric: "C", Dimensions: []cloudwatch.Dimension{{Label: "l", Name: "L"}}},
			{Counter: "g", Metric: "G"},
		}})
		vec.WithLabelValues("a").Add(5)
		vec.WithLabelValues("").Add(1)
		minute()
		w.want(t, "00:00:00 C{} 1 Count/60", "00:00:00 C{L=a} 5 Count/60")
		gatherer.hides.Store(true)
		vec.WithLabelValues("a").Add(2)
		minute()
		w.want(t)
		gatherer.hides.Store(false)
		minute()
		w.want(t, "00:02:00 C{L=a} 2 Count/60")
		vec.DeleteLabelValues("a")
		vec.WithLabelValues("a").Add(3) // below 7: it began again
		minute()
		w.want(t, "00:03:00 C{L=a} 3 Count/60")
		vec.DeleteLabelValues("a")
		minute()
		vec.WithLabelValues("a").Add(100)
		minute()
		w.want(t, "00:05:00 C{L=a} 100 Count/60")
		w.stop()
	})
}
