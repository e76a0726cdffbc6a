package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// printTable prints the measurements. The column "hits" shows the percentage of a pull's bytes that
// did not come from ECR.
func printTable(w io.Writer, rows []row) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(columns ...string) { fmt.Fprintln(table, strings.Join(columns, "\t")+"\t") }
	width := 0
	for _, r := range rows {
		width = max(width, len(r.operation))
	}
	line(pad("operation", width), "time", "to/from client", "from ECR", "requests to ECR", "hits")
	for _, r := range rows {
		sent, requests, hits := "-", "-", "-"
		if r.metered {
			sent, requests = megabytes(r.ecr.bytes), fmt.Sprint(r.ecr.requests)
		}
		if r.through && r.pull && r.client > 0 {
			hits = fmt.Sprintf("%.0f %%", 100*max(0, 1-float64(r.ecr.bytes)/float64(r.client)))
		}
		line(pad(r.operation, width), seconds(r.took), megabytes(r.client), sent, requests, hits)
	}
	table.Flush()
}

// pad aligns the first column, which is text, to the left.
func pad(s string, width int) string { return s + strings.Repeat(" ", width-len(s)) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// printNext prints commands to try while dray is up.
func (s *testbed) printNext(w io.Writer) {
	about := "The stand-in for ECR moves at most 25 MB/s per request, as a registry at some distance would. It, dray and their files end with Ctrl-C."
	if s.control == "" {
		about = "ECR is " + s.ecrHost + "; nothing there was touched but the repository " + repository + ". dray and its files end with Ctrl-C."
	}
	if s.isOpen() {
		about += "\n\nWARNING: other machines can connect to dray at port " + s.vars["PORT"] + ", and pull without a password what its credentials can read;" +
			"\nDRAY_ADDRESS=127.0.0.1:" + s.vars["PORT"] + " keeps them out."
	}
	certificate, registry := s.vars["TLS_CERTIFICATE"], s.registry
	trust := ""
	// By default, Docker checks no certificate of a registry at a loopback address (documentation of
	// dockerd, "Insecure registries").
	if !isLoopback(registry) {
		trust = fmt.Sprintf(`
  # Docker does not know the certificate yet:
  sudo mkdir -p /etc/docker/certs.d/%[1]s && sudo cp %[2]s /etc/docker/certs.d/%[1]s/ca.crt
`, registry, certificate)
	}
	fmt.Fprintf(w, `
%s

Everything is up: dray at https://%[2]s, its metrics at http://%[3]s/metrics. In another terminal:
%[7]s
  # pull through dray, and run dray out of dray:
  docker pull %[2]s/%[5]s:one && docker run --rm %[2]s/%[5]s:one

  # push through dray to ECR (from this machine only):
  docker tag %[2]s/%[5]s:one %[2]s/%[5]s:mine && docker push %[2]s/%[5]s:mine

  # as a mirror of Docker Hub, in /etc/docker/daemon.json (Docker 24 and later), then: sudo systemctl restart docker
  { "registry-mirrors": ["https://%[2]s/docker.io"] }

  # by hand, and what dray counted:
  curl --cacert %[4]s https://%[2]s/v2/%[5]s/tags/list
  curl -s http://%[3]s/metrics | grep ^dray_

  # what dray and the stand-in wrote: %[6]s
`, about, registry, s.admin, certificate, repository, s.dir+"/*.log", trust)
}
