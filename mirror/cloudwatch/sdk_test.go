package cloudwatch_test

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	aws "github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/fxamacker/cbor/v2"
	"github.com/prometheus/client_golang/prometheus"

	"dray/mirror/cloudwatch"
	"dray/mirror/pulls"
)

// request is what CloudWatch sees of one call.
type request struct {
	header     http.Header
	path       string
	compressed bool
	body       struct {
		Namespace  string
		MetricData []struct {
			MetricName        string
			Value             float64
			Unit              string
			StorageResolution int
			Timestamp         any
			Dimensions        []struct{ Name, Value string }
		}
	}
}

// service answers like CloudWatch over rpc-v2-cbor.
type service struct {
	t        *testing.T
	mu       sync.Mutex
	requests []request
	refuse   string // the code of an error answer
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	req := request{header: r.Header, path: r.URL.Path, compressed: r.Header.Get("Content-Encoding") == "gzip"}
	body := io.Reader(r.Body)
	if req.compressed {
		unzip, err := gzip.NewReader(body)
		if err != nil {
			s.t.Error(err)
			return
		}
		body = unzip
	}
	if err := cbor.NewDecoder(body).Decode(&req.body); err != nil {
		s.t.Errorf("decode: %v", err)
	}
	s.requests = append(s.requests, req)
	w.Header().Set("Smithy-Protocol", "rpc-v2-cbor")
	w.Header().Set("Content-Type", "application/cbor")
	if s.refuse != "" {
		w.Header().Set("X-Amzn-Query-Error", s.refuse+";Sender")
		w.WriteHeader(http.StatusBadRequest)
		answer, _ := cbor.Marshal(map[string]string{"__type": "com.amazonaws.cloudwatch#" + s.refuse, "message": "no"})
		_, _ = w.Write(answer)
		return
	}
	_, _ = w.Write([]byte{0xa0}) // an empty map
}

// TestSDK publishes through the real client.
func TestSDK(t *testing.T) {
	s := &service{t: t}
	server := httptest.NewServer(s)
	defer server.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := aws.New(aws.Options{
		Region:                      "eu-central-1",
		BaseEndpoint:                sdk.String(server.URL),
		Credentials:                 credentials.NewStaticCredentialsProvider("id", "secret", ""),
		HTTPClient:                  &http.Client{Transport: transport},
		RequestMinCompressSizeBytes: 10240,
	})
	counts := pulls.New(pulls.Options{Detail: pulls.PerImage, MaxSeries: 2000})
	reg := prometheus.NewRegistry()
	reg.MustRegister(counts.Collectors()...)
	publisher := cloudwatch.New(cloudwatch.Options{
		Client: client, Gatherer: reg, Namespace: namespace, Series: cloudwatch.PullSeries(metric, pulls.PerImage),
	})
	// Run publishes once when its context has ended.
	flush := func() []request {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := publisher.Run(ctx); err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		got := s.requests
		s.requests = nil
		return got
	}

	counts.Inc("ecr", host, "team/app", "v1")
	counts.Inc("ecr", host, "team/app", "v1")
	got := flush()
	if len(got) != 1 || len(got[0].body.MetricData) != 2 {
		t.Fatalf("requests %+v", got)
	}
	one := got[0]
	total, image := one.body.MetricData[0], one.body.MetricData[1]
	if one.path != "/service/GraniteServiceVersion20100801/operation/PutMetricData" || one.compressed ||
		!strings.Contains(one.header.Get("Authorization"), "/eu-central-1/monitoring/aws4_request") || one.body.Namespace != namespace {
		t.Errorf("request %+v", one)
	}
	if total.MetricName != metric || total.Value != 2 || total.Unit != "Count" || total.StorageResolution != 60 || total.Dimensions != nil || total.Timestamp == nil {
		t.Errorf("total %+v", total)
	}
	if want := "[{Repository " + host + "/team/app} {Image v1}]"; image.Value != 2 || fmt.Sprint(image.Dimensions) != want {
		t.Errorf("image %+v", image)
	}

	for i := range 1200 {
		counts.Inc("ecr", host, "team/app", fmt.Sprint("build-", i))
	}
	got = flush()
	if len(got) != 2 || !got[0].compressed || len(got[0].body.MetricData) != 1000 || len(got[1].body.MetricData) != 201 {
		t.Errorf("%d requests for 1201 data points", len(got))
	}

	// An error the same data would cause again is known by its type.
	s.refuse = "InvalidParameterValueException"
	counts.Inc("ecr", host, "team/app", "v2")
	if n := len(flush()); n != 1 {
		t.Errorf("refused data was sent %d times", n)
	}
	s.refuse = ""
	if n := len(flush()); n != 0 {
		t.Errorf("refused data was sent %d times again", n)
	}
}
