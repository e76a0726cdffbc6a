package pulls_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"dray/mirror/pulls"
)

const host = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"

func compare(t *testing.T, p *pulls.Pulls, want string) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(p.Collectors()...)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetName()+"="+l.GetValue())
			}
			got = append(got, fmt.Sprintf("%s{%s} %g", f.GetName(), strings.Join(values, ","), m.GetCounter().GetValue()))
		}
	}
	if g := strings.Join(got, "\n"); g != strings.TrimSpace(want) {
		t.Errorf("got\n%s\nwant\n%s", g, want)
	}
}

func TestDetail(t *testing.T) {
	for detail, want := range map[pulls.Detail]string{
		"":         "dray_image_pulls_total{upstream=ecr} 4\ndray_image_pulls_total{upstream=hub} 1",
		pulls.None: "dray_image_pulls_total{upstream=ecr} 4\ndray_image_pulls_total{upstream=hub} 1",
		pulls.PerRepository: "dray_image_pulls_detailed_total{image=,repository=" + host + "/team/app,upstream=ecr} 3\n" +
			"dray_image_pulls_detailed_total{image=,repository=" + host + "/team/other,upstream=ecr} 1\n" +
			"dray_image_pulls_detailed_total{image=,repository=library/nginx,upstream=hub} 1\n" +
			"dray_image_pulls_total{upstream=ecr} 4\ndray_image_pulls_total{upstream=hub} 1",
		pulls.PerImage: "dray_image_pulls_detailed_total{image=1,repository=library/nginx,upstream=hub} 1\n" +
			"dray_image_pulls_detailed_total{image=v1,repository=" + host + "/team/app,upstream=ecr} 2\n" +
			"dray_image_pulls_detailed_total{image=v1,repository=" + host + "/team/other,upstream=ecr} 1\n" +
			"dray_image_pulls_detailed_total{image=v2,repository=" + host + "/team/app,upstream=ecr} 1\n" +
			"dray_image_pulls_total{upstream=ecr} 4\ndray_image_pulls_total{upstream=hub} 1",
	} {
		t.Run(string(detail), func(t *testing.T) {
			p := pulls.New(pulls.Options{Detail: detail})
			p.Inc("ecr", host, "team/app", "v1")
			p.Inc("ecr", host, "team/app", "v1")
			p.Inc("ecr", host, "team/app", "v2")
			p.Inc("ecr", host, "team/other", "v1")
			p.Inc("hub", "", "library/nginx", "1")
			compare(t, p, want)
		})
	}
}

func TestBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pulls.New(pulls.Options{Detail: pulls.PerImage, MaxSeries: 2})
		p.Inc("ecr", "r", "app", "a")
		p.Inc("ecr", "r", "app", "b")
		for i := range 1000 {
			p.Inc("ecr", "r", "app", fmt.Sprint("flood", i))
		}
		compare(t, p, `
dray_image_pulls_detailed_total{image=a,repository=r/app,upstream=ecr} 1
dray_image_pulls_detailed_total{image=b,repository=r/app,upstream=ecr} 1
dray_image_pulls_detailed_total{image=other,repository=other,upstream=ecr} 1000
dray_image_pulls_total{upstream=ecr} 1002`)

		time.Sleep(10 * time.Minute)
		p.Inc("ecr", "r", "app", "b")
		time.Sleep(5 * time.Minute)
		p.Inc("ecr", "r", "app", "c") // takes the place of a, which stood still
		p.Inc("ecr", "r", "app", "d") // finds none
		compare(t, p, `
dray_image_pulls_detailed_total{image=b,repository=r/app,upstream=ecr} 2
dray_image_pulls_detailed_total{image=c,repository=r/app,upstream=ecr} 1
dray_image_pulls_detailed_total{image=other,repository=other,upstream=ecr} 1001
dray_image_pulls_total{upstream=ecr} 1005`)
	})
}

// TestConcurrent checks that no pull is lost while series come and go.
func TestConcurrent(t *testing.T) {
	p := pulls.New(pulls.Options{Detail: pulls.PerImage, MaxSeries: 5, Idle: time.Hour})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 500 {
				p.Inc("ecr", "r", "app", fmt.Sprint((w+i)%10))
			}
		})
	}
	wg.Wait()
	if got := testutil.ToFloat64(p.Collectors()[0]); got != 4000 {
		t.Errorf("total %v", got)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(p.Collectors()[1])
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, m := range families[0].GetMetric() {
		sum += m.GetCounter().GetValue()
	}
	if n := len(families[0].GetMetric()); sum != 4000 || n != 6 {
		t.Errorf("%v pulls in %d series", sum, n)
	}
}
