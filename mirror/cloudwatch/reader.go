package cloudwatch

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"dray/mirror/pulls"
)

// PullSeries returns the series about pulls. The parameter metric is their name in CloudWatch. The
// first series has no dimensions: it counts all pulls. With [pulls.PerRepository] there is a
// second series, with the dimension Repository. With [pulls.PerImage] the second series has the
// dimensions Repository and Image. The first series is always needed, because CloudWatch does not
// add up the values of a dimension. If upstreams are given, only their pulls count.
func PullSeries(metric string, detail pulls.Detail, upstreams ...string) []Series {
	var only map[string][]string
	if len(upstreams) > 0 {
		only = map[string][]string{pulls.LabelUpstream: upstreams}
	}
	all := []Series{{Counter: pulls.Total, Metric: metric, Only: only}}
	repository := Dimension{Label: pulls.LabelRepository, Name: "Repository"}
	image := Dimension{Label: pulls.LabelImage, Name: "Image"}
	switch detail {
	case pulls.PerRepository:
		all = append(all, Series{Counter: pulls.Detailed, Metric: metric, Only: only, Dimensions: []Dimension{repository}})
	case pulls.PerImage:
		all = append(all, Series{Counter: pulls.Detailed, Metric: metric, Only: only, Dimensions: []Dimension{repository, image}})
	}
	return all
}

// increase is how much a metric of CloudWatch has grown since the last read.
type increase struct {
	series *Series
	values []string // the values of the series' dimensions
	by     float64
}

// datum returns the increase as a data point for CloudWatch.
func (i increase) datum(at time.Time) types.MetricDatum {
	d := types.MetricDatum{
		MetricName:        &i.series.Metric,
		Timestamp:         &at,
		Unit:              types.StandardUnitCount,
		StorageResolution: aws.Int32(60),
		Value:             aws.Float64(i.by),
	}
	for n, value := range i.values {
		if value != "" {
			d.Dimensions = append(d.Dimensions, types.Dimension{
				Name: &i.series.Dimensions[n].Name, Value: aws.String(dimensionValue(value)),
			})
		}
	}
	return d
}

// dimensionValue makes a value that CloudWatch accepts: 1 to 1024 ASCII characters, no control
// characters, not starting with a colon (API reference, Dimension). CloudWatch refuses a whole
// request because of one invalid value.
func dimensionValue(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, s[:min(len(s), 1024)])
	if strings.TrimSpace(s) == "" || s[0] == ':' {
		return "?" + s[1:]
	}
	return s
}

// Limits of one request (API reference, PutMetricData: 1000 metrics, 1 MB). The size of a data
// point is estimated as the length of its texts plus an allowance for their encoding.
const (
	batchData  = 1000
	batchBytes = 900_000
	datumBytes = 200
	dimBytes   = 40
)

// batchLen returns how many of the data points fit into one request.
func batchLen(data []types.MetricDatum) int {
	size := 0
	for n, d := range data[:min(batchData, len(data))] {
		size += datumBytes + len(*d.MetricName)
		for _, dim := range d.Dimensions {
			size += dimBytes + len(*dim.Name) + len(*dim.Value)
		}
		if size > batchBytes {
			return max(n, 1)
		}
	}
	return min(batchData, len(data))
}

// reader computes the increases of counters.
type reader struct {
	gatherer prometheus.Gatherer
	series   []Series
	seen     map[string]float64 // last value of each series of a counter, by identity
}

func (r *reader) wants(family *dto.MetricFamily) bool {
	return family.GetType() == dto.MetricType_COUNTER &&
		slices.ContainsFunc(r.series, func(s Series) bool { return s.Counter == family.GetName() })
}

func newReader(g prometheus.Gatherer, series []Series) reader {
	return reader{gatherer: g, series: series, seen: map[string]float64{}}
}

// read returns the increases since the last read, or since the start. If some counters cannot be
// read, it returns an error and the increases of the other counters. The next read then includes
// the missing increases.
func (r *reader) read() ([]increase, error) {
	families, err := r.gatherer.Gather()
	families = slices.DeleteFunc(families, func(f *dto.MetricFamily) bool { return !r.wants(f) })
	grown := map[string]float64{}
	values := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			key := identity(family.GetName(), m)
			value := m.GetCounter().GetValue()
			values[key] = value
			if by := value - r.seen[key]; by >= 0 {
				grown[key] = by
			} else {
				grown[key] = value // the series was removed and started again
			}
		}
	}
	if err != nil {
		// A series that is missing now may be back at the next read, so keep its last value.
		maps.Copy(r.seen, values)
	} else {
		r.seen = values
	}
	return r.add(families, grown), err
}

// add returns, for each series and each combination of values of its dimensions, the sum of the
// increases.
func (r *reader) add(families []*dto.MetricFamily, grown map[string]float64) []increase {
	var all []increase
	for n := range r.series {
		series := &r.series[n]
		sums := map[string]*increase{}
		for _, family := range families {
			if family.GetName() != series.Counter {
				continue
			}
			for _, m := range family.GetMetric() {
				by := grown[identity(family.GetName(), m)]
				if by <= 0 || !series.picks(m) {
					continue
				}
				values := make([]string, len(series.Dimensions))
				for i, d := range series.Dimensions {
					values[i] = label(m, d.Label)
				}
				key := strings.Join(values, "\x00")
				if sums[key] == nil {
					sums[key] = &increase{series: series, values: values}
				}
				sums[key].by += by
			}
		}
		for _, key := range slices.Sorted(maps.Keys(sums)) {
			all = append(all, *sums[key])
		}
	}
	return all
}

func (s *Series) picks(m *dto.Metric) bool {
	for name, values := range s.Only {
		if !slices.Contains(values, label(m, name)) {
			return false
		}
	}
	return true
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// identity returns a key for one series of a counter. A Gatherer sorts the labels, so the key is
// always the same.
func identity(name string, m *dto.Metric) string {
	var b strings.Builder
	b.WriteString(name)
	for _, l := range m.GetLabel() {
		b.WriteString("\x00" + l.GetName() + "\x00" + l.GetValue())
	}
	return b.String()
}
