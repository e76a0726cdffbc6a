package ecrtest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"
)

const (
	metricPath     = "/service/GraniteServiceVersion20100801/operation/PutMetricData"
	maxMetricBytes = 1 << 20
	maxDatums      = 100000 // the server stores at most this many metrics, and drops the oldest first
	cborType       = "application/cbor"
)

// Datum is one metric of a PutMetricData call.
type Datum struct {
	Namespace         string      `cbor:"-" json:"namespace"`
	MetricName        string      `cbor:"MetricName" json:"metricName"`
	Dimensions        []Dimension `cbor:"Dimensions" json:"dimensions,omitempty"`
	Timestamp         *time.Time  `cbor:"Timestamp" json:"timestamp,omitempty"`
	Value             *float64    `cbor:"Value" json:"value,omitempty"`
	Values            []float64   `cbor:"Values" json:"values,omitempty"`
	Counts            []float64   `cbor:"Counts" json:"counts,omitempty"`
	Statistics        *Statistics `cbor:"StatisticValues" json:"statistics,omitempty"`
	Unit              string      `cbor:"Unit" json:"unit,omitempty"`
	StorageResolution *int        `cbor:"StorageResolution" json:"storageResolution,omitempty"`
}

// Dimension is a name and value of a Datum.
type Dimension struct {
	Name  string `cbor:"Name" json:"name"`
	Value string `cbor:"Value" json:"value"`
}

// Statistics are the StatisticValues of a Datum.
type Statistics struct {
	SampleCount float64 `cbor:"SampleCount" json:"sampleCount"`
	Sum         float64 `cbor:"Sum" json:"sum"`
	Minimum     float64 `cbor:"Minimum" json:"minimum"`
	Maximum     float64 `cbor:"Maximum" json:"maximum"`
}

func (s *Server) metricsHandler() http.Handler {
	kind := func(*http.Request) Kind { return KindMetricPut }
	return s.observe(surface{"api", kind, writeMetricError, "Throttling", "InternalServiceFault"}, func(w http.ResponseWriter, r *http.Request) {
		if err := s.putMetrics(r); err != nil {
			writeMetricError(w, s.wire(err))
			return
		}
		h := w.Header()
		h.Set("Smithy-Protocol", "rpc-v2-cbor")
		h.Set("Content-Type", cborType)
		_, _ = w.Write([]byte{0xa0}) // the empty map; the write fails only if the client is gone
	})
}

// writeMetricError writes an error of the CBOR protocol. A header also has the code in the form of
// the older Query protocol.
func writeMetricError(w http.ResponseWriter, e *wireError) {
	if e.Hangup {
		panic(http.ErrAbortHandler) // closes the connection without an answer
	}
	body, _ := cbor.Marshal(map[string]string{"__type": "com.amazonaws.cloudwatch#" + e.Code, "message": e.Message})
	side := "Sender"
	if e.Status >= http.StatusInternalServerError {
		side = "Receiver"
	}
	h := w.Header()
	for k, v := range e.Header {
		h[k] = v
	}
	h.Set("Smithy-Protocol", "rpc-v2-cbor")
	h.Set("Content-Type", cborType)
	h.Set("X-Amzn-Query-Error", e.Code+";"+side)
	w.WriteHeader(e.Status)
	_, _ = w.Write(body) // fails only if the client is gone
}

func (s *Server) putMetrics(r *http.Request) error {
	if _, err := s.signedCall(r, "monitoring"); err != nil {
		return err
	}
	if r.Method != http.MethodPost || r.Header.Get("Smithy-Protocol") != "rpc-v2-cbor" || r.Header.Get("Content-Type") != cborType {
		return exception("UnknownOperationException", "rpc-v2-cbor by POST is the protocol of this path")
	}
	if !s.throttle.allow("PutMetricData") {
		return exception("Throttling", "Rate exceeded")
	}
	plain, err := s.metricBody(r)
	if err != nil {
		return err
	}
	var in struct {
		Namespace  string  `cbor:"Namespace"`
		MetricData []Datum `cbor:"MetricData"`
	}
	if err := cbor.Unmarshal(plain, &in); err != nil {
		return exception("SerializationException", "%v", err)
	}
	if in.Namespace == "" || len(in.Namespace) > 255 || len(in.MetricData) == 0 {
		return exception("MissingRequiredParameter", "The parameters Namespace and MetricData are required.")
	}
	if len(in.MetricData) > 1000 {
		return exception("InvalidParameterValue", "The collection MetricData must not have a size greater than 1000.")
	}
	now := s.now()
	for i := range in.MetricData {
		if err := in.MetricData[i].check(i+1, now); err != nil {
			return err
		}
		in.MetricData[i].Namespace = in.Namespace
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.metrics = append(s.metrics, in.MetricData...)
	if over := len(s.metrics) - maxDatums; over > 0 {
		s.metrics = slices.Delete(s.metrics, 0, over)
	}
	return nil
}

// metricBody returns the decompressed body. It refuses a body that has more than 1 MB before
// decompression. Unless MetricLimitGzipped is on, it also refuses a body that has more than 1 MB
// after decompression.
func (s *Server) metricBody(r *http.Request) ([]byte, error) {
	sent, err := io.ReadAll(io.LimitReader(r.Body, maxMetricBytes+1))
	if err != nil {
		return nil, hangup() // the client is gone, or has sent less than it announced
	}
	tooLarge := refuse(http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", "Request size exceeds 1 MB")
	if len(sent) > maxMetricBytes {
		return nil, tooLarge
	}
	if r.Header.Get("Content-Encoding") != "gzip" {
		return sent, nil
	}

	z, err := gzip.NewReader(bytes.NewReader(sent))
	if err != nil {
		return nil, exception("SerializationException", "%v", err)
	}
	plain, err := io.ReadAll(io.LimitReader(z, 64*maxMetricBytes))
	if err != nil {
		return nil, exception("SerializationException", "%v", err)
	}
	if len(plain) > maxMetricBytes && !s.Switches().MetricLimitGzipped {
		return nil, tooLarge
	}
	return plain, nil
}

// check checks the limits of CloudWatch for the n-th metric.
func (d *Datum) check(n int, now time.Time) error {
	invalid := func(format string, args ...any) error {
		return exception("InvalidParameterValue", "The parameter MetricData.member.%d.%s", n, fmt.Sprintf(format, args...))
	}
	if d.MetricName == "" || len(d.MetricName) > 255 {
		return invalid("MetricName must have 1 to 255 characters.")
	}
	if len(d.Dimensions) > 30 {
		return invalid("Dimensions must not have more than 30 members.")
	}
	for _, dim := range d.Dimensions {
		if dim.Name == "" || len(dim.Name) > 255 || !printable(dim.Value) || len(dim.Value) > 1024 {
			return invalid("Dimensions has a name or value that is blank, too long or not ASCII.")
		}
	}
	if len(d.Values) > 150 || len(d.Counts) > 0 && len(d.Counts) != len(d.Values) {
		return invalid("Values must have at most 150 members, and Counts as many as Values.")
	}
	if given := btoi(d.Value != nil) + btoi(len(d.Values) > 0) + btoi(d.Statistics != nil); given != 1 {
		return exception("InvalidParameterCombination", "Exactly one of Value, Values and StatisticValues must be given for MetricData.member.%d.", n)
	}
	for _, v := range append(slices.Clone(d.Values), d.single()...) {
		if math.IsNaN(v) || math.Abs(v) > math.Pow(2, 360) {
			return invalid("Value must be a number from -2^360 to 2^360.")
		}
	}
	if t := d.Timestamp; t != nil && (now.Sub(*t) > 14*24*time.Hour || t.Sub(now) > 2*time.Hour) {
		return invalid("Timestamp must lie between two weeks ago and two hours ahead.")
	}
	if res := d.StorageResolution; res != nil && *res != 1 && *res != 60 {
		return invalid("StorageResolution must be 1 or 60.")
	}
	return nil
}

func (d *Datum) single() []float64 {
	if d.Value != nil {
		return []float64{*d.Value}
	}
	if st := d.Statistics; st != nil {
		return []float64{st.SampleCount, st.Sum, st.Minimum, st.Maximum}
	}
	return nil
}

// printable reports whether s consists of printable ASCII and is not blank.
func printable(s string) bool {
	solid := false
	for _, c := range []byte(s) {
		if c < 0x20 || c > 0x7e {
			return false
		}
		solid = solid || c != ' '
	}
	return solid
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Metrics returns the metrics of PutMetricData, in order of arrival.
func (s *Server) Metrics() []Datum {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.metrics)
}
