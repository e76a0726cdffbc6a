package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	awscloudwatch "github.com/aws/aws-sdk-go-v2/service/cloudwatch"

	"dray/cmd/dray/certificates"
	"dray/cmd/dray/clients"
	"dray/cmd/dray/config"
	"dray/cmd/dray/registries"
	"dray/cmd/dray/stats"
	"dray/cmd/dray/window"
	"dray/mirror/admin"
	"dray/mirror/admin/api"
	"dray/mirror/cloudwatch"
	"dray/mirror/explain"
	"dray/mirror/history"
	"dray/mirror/pulls"
	"dray/mirror/repository"
	"dray/mirror/wire"
)

// buildPulls makes the function that counts a pull. Metrics and CloudWatch read the same counters.
func (g *graph) buildPulls() func(r repository.Repo, reference string) {
	c := g.cfg.CloudWatch
	counted := pulls.New(pulls.Options{
		Detail: pulls.Detail(c.Dimensions), MaxSeries: c.MaxSeries, Idle: max(15*time.Minute, 2*c.Interval.Std()),
	})
	g.register(counted.Collectors())
	return func(r repository.Repo, reference string) {
		counted.Inc(r.Up.Name, r.Up.Registry, r.Remote().Name, reference)
	}
}

// buildCloudWatch makes the part that sends the counts of pulls to CloudWatch: the pulls from
// private ECR, or all pulls if no upstream is private ECR.
func (g *graph) buildCloudWatch(ctx context.Context) error {
	c := g.cfg.CloudWatch
	if c.Region == "" {
		return nil
	}
	aws, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRegion(c.Region), awsLog(g.log))
	if err != nil {
		return fmt.Errorf("cloudwatch: AWS configuration: %w", err)
	}
	var ecr []string
	for _, u := range g.cfg.Upstreams {
		if u.Kind == config.KindECR {
			ecr = append(ecr, u.Name)
		}
	}
	p := cloudwatch.New(cloudwatch.Options{
		Client: awscloudwatch.NewFromConfig(aws), Gatherer: g.metrics, Namespace: c.Namespace, Interval: c.Interval.Std(), Logger: g.log,
		Series: cloudwatch.PullSeries(c.Metric, pulls.Detail(c.Dimensions), ecr...),
	})
	g.register(p.Collectors())
	g.background["cloudwatch"] = p.Run
	return nil
}

// buildCertificates makes the part that reports certificates that are invalid or expire soon. It
// reports them in a metric, in a check of /readyz, and once a day in the log.
func (g *graph) buildCertificates(context.Context) error {
	g.certificates = certificates.NewFiles(g.cfg.CertificateFiles())
	g.metrics.MustRegister(g.certificates)
	g.background["certificates"] = func(ctx context.Context) error { return g.certificates.Warn(ctx, g.log) }
	return nil
}

// buildAdmin makes the history, and the account that calculates what dray has saved. It also makes
// the admin listener unless it is off, and the listener for health and metrics if it has an
// address.
func (g *graph) buildAdmin(context.Context) (err error) {
	g.account = stats.NewAccount(directoriesOf(g.cfg).Ledger(), g.metrics, g.cfg, g.log)
	g.background["ledger"] = g.account.Run
	g.history = history.Open(history.Options{Directory: directoriesOf(g.cfg).History(), Gatherer: g.metrics, Logger: g.log})
	g.background["history"] = g.history.Run
	g.metrics.MustRegister(g.account.Collector())
	streaming, end := context.WithCancel(g.watching)
	g.endStreams = end
	options, err := g.adminOptions(streaming, g.cfg, g.access, g.registries)
	if err != nil {
		return err
	}
	if address := g.cfg.Admin.HealthAddress; address != "" {
		if g.health, err = g.newAdmin("health", "admin.health_address", address, admin.NewHealth(options)); err != nil {
			return err
		}
	}
	if address := g.cfg.Admin.Address; address != config.AdminOff {
		g.admin, err = g.newAdmin("admin", "admin.address or DRAY_ADMIN_ADDRESS", address, admin.NewHandler(options))
	}
	return err
}

// adminOptions returns the options of the admin listener. Only one check is critical
// ([admin.Check]): it fails when dray is stopping. The other checks are not critical: while an
// upstream, the token for it, or the facts are out of reach, dray still serves content that it
// holds. The answers that are streams end when streamCtx ends.
func (g *graph) adminOptions(streamCtx context.Context, cfg config.Config, access clients.Entries, all []*registries.Registry) (admin.Options, error) {
	checks := []admin.Check{{Name: "running", Run: g.listeners.Ready, Critical: true}, {Name: "metadata", Run: g.store.Check}, {Name: "cache", Run: func(context.Context) error { return g.cache.Check() }}}
	if slices.ContainsFunc(cfg.Upstreams, func(u config.Upstream) bool { return u.Push }) {
		checks = append(checks, admin.Check{Name: "pushes", Run: g.mirror.CheckPushes})
	}
	if _, runs := g.background["queue"]; runs {
		checks = append(checks, admin.Check{Name: "queue", Run: g.queue.Check})
	}
	if len(cfg.CertificateFiles()) > 0 {
		checks = append(checks, admin.Check{Name: "certificates", Run: g.certificates.Check})
	}
	for _, r := range all {
		checks = append(checks, admin.Check{Name: "upstream " + r.Name, Run: r.Healthy})
	}
	operators, err := clients.Operators(cfg.Admin, access, g.log)
	explainer := g.explainer(cfg, access, all)
	return admin.Options{Gatherer: g.metrics, Checks: checks, API: g.endpoints(streamCtx, cfg, explainer), Page: g.page(cfg, all, checks, explainer), Hosts: cfg.Admin.Hosts, Operators: operators, Logger: g.log}, err
}

// page makes the page that operators see in a browser.
func (g *graph) page(cfg config.Config, all []*registries.Registry, checks []admin.Check, e *explain.Explainer) http.Handler {
	return window.New(window.Parts{
		Config: cfg, Registries: all, Checks: checks, Live: g.live, Disk: g.disk, Inventory: g.inventory, Explain: e.Explain, Log: g.log,
		Stats:   func() (api.Stats, error) { return stats.Gathered(g.metrics) },
		Savings: func() (api.Savings, error) { return g.account.Bill(stats.RecentDays) },
		Queue:   func() api.Queued { return queuedOf(g.queue.List()) },
		Uploads: g.mirror.Uploads, Fleet: g.member.Reporter(), History: g.history,
	})
}

// adminGrace is how long requests of operators may continue after the requests of clients have
// ended.
const adminGrace = 2 * time.Second

// newAdmin makes a server for operators. Its connections do not count towards the limit for
// clients.
func (g *graph) newAdmin(name, setting, address string, h http.Handler) (*wire.Server, error) {
	return g.newServer(wire.ServerOptions{Grace: adminGrace, OnStop: g.endWatching, Connections: wire.NewConnections(adminConnections, g.log), Name: name, Setting: setting, Address: address, Handler: h})
}
