package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"dray/cmd/dray/config"
	"dray/mirror/admin/api"
	"dray/upstream/ecr"
)

// If this machine's clock differs from a registry's clock by mostSkew or more, the check fails. If
// it differs by someSkew or more, the check warns. AWS refuses signatures that are 5 minutes off
// ("Signature Version 4", Eliminating skew).
const (
	mostSkew = 5 * time.Minute
	someSkew = 30 * time.Second
)

// Registry is an upstream that the doctor checks.
type Registry struct {
	Name string
	// Address is the URL of the registry, and ends with /v2/.
	Address string
	// Transport reaches the registry as dray does: it trusts the same authorities and dials the same
	// address.
	Transport interface {
		http.RoundTripper
		CloseIdleConnections()
	}
	// AWS is true if dray uses the credentials that the AWS SDK finds.
	AWS bool
	// Layers is the URL of the host that sends the registry's layers; empty if it is not known.
	Layers string
	// Quota asks how many pulls the registry still allows. The Limit of the result is 0 if the
	// registry states no quota. Quota is nil for registries that never have one.
	Quota func(ctx context.Context) (Quota, error)
	// Rates asks for the quotas of the account, and returns them with the rates at which dray may send
	// requests. It is nil for registries whose quotas dray cannot ask for.
	Rates func(ctx context.Context) ([]Rate, error)
	// Pushes says that clients may push to the upstream. PushTo starts an upload and cancels it.
	// PushTo is nil if the operator named no repository.
	Pushes bool
	PushTo func(ctx context.Context) error
	// Hello sends, with dray's credentials, the request by which clients find out whether they may use
	// the registry.
	Hello func(ctx context.Context) error
}

// answered is the response to one request, or the error of the request, and the time that the
// request took.
type answered struct {
	*http.Response
	took time.Duration
	err  error
}

// checks returns the checks of a registry. Two of the checks share one request.
func (r Registry) checks() []Check {
	id := "registry." + r.Name + "."
	var once sync.Once
	var a answered
	on := func(look func(answered) Finding) func(context.Context) Finding {
		return func(ctx context.Context) Finding {
			once.Do(func() {
				began := time.Now()
				a.Response, a.err = r.head(ctx, r.Address)
				a.took = time.Since(began)
			})
			return look(a)
		}
	}
	checks := []Check{
		{"registries", id + "reachable", on(r.reachable)},
		{"registries", id + "credentials", r.credentials},
		{"registries", id + "clock", on(r.clock)},
	}
	if r.Layers != "" {
		checks = append(checks, Check{"registries", id + "layers", r.layers})
	}
	if r.Quota != nil {
		checks = append(checks, Check{"registries", id + "quota", r.quota})
	}
	if r.Rates != nil {
		checks = append(checks, Check{"registries", id + "rates", r.rates})
	}
	if r.Pushes || r.PushTo != nil {
		checks = append(checks, Check{"registries", id + "push", r.push})
	}
	return checks
}

// layers says whether the host of the layers answers. A refusal counts as an answer, because the
// request has no signature.
func (r Registry) layers(ctx context.Context) Finding {
	resp, err := r.head(ctx, r.Layers)
	switch {
	case err != nil:
		return failed("let this machine reach the host, by the internet, a NAT gateway or a VPC endpoint of S3; pulls of layers fail without it", "the host of the layers of the upstream %s cannot be reached: %v", r.Name, err)
	case resp.StatusCode >= http.StatusInternalServerError:
		return failed("wait: dray serves what it holds meanwhile", "the host of the layers of the upstream %s answers %s", r.Name, resp.Status)
	}
	return ok("the host of the layers of the upstream %s answers", r.Name)
}

// Quota has the number of pulls that a registry allows in a window, and the number that is left.
type Quota struct {
	Limit, Remaining int
	Window           time.Duration
	Source           string // the address or account whose pulls the registry counts; may be empty
}

func (r Registry) quota(ctx context.Context) Finding {
	q, err := r.Quota(ctx)
	switch {
	case err != nil:
		return unknown("", "the upstream %s does not say how many pulls are left: %v", r.Name, err)
	case q.Limit == 0:
		return ok("the upstream %s states no quota of pulls", r.Name)
	case q.Remaining*10 < q.Limit:
		return warning("use an account with a higher limit, or let other machines at this address pull through dray", "%d of %d pulls in %s are left at the upstream %s for %s", q.Remaining, q.Limit, q.Window, r.Name, cmp.Or(q.Source, "this address or account"))
	}
	return ok("%d of %d pulls in %s are left at the upstream %s for %s", q.Remaining, q.Limit, q.Window, r.Name, cmp.Or(q.Source, "this address or account"))
}

// Rate has two numbers of requests per second for one operation: how many dray may send, and how
// many the registry allows.
type Rate struct {
	Name string
	Used float64 // the most that dray sends; 0 if it has no bound
	// Quota is the number of requests per second that the registry allows the account.
	Quota float64
}

func (r Registry) rates(ctx context.Context) Finding {
	all, err := r.Rates(ctx)
	if err != nil {
		return unknown("allow servicequotas:ListServiceQuotas, and a way to this service, if you want to know; dray does not need it", "the quotas of the upstream %s are not known: %v", r.Name, err)
	}
	var below, above []string
	for _, rate := range all {
		text := fmt.Sprintf("%s: %v", rate.Name, rate.Quota)
		switch {
		case rate.Used == 0, rate.Used > rate.Quota:
			below = append(below, text)
		case rate.Used < rate.Quota:
			above = append(above, text)
		}
	}
	switch {
	case len(below) > 0:
		return warning("set limits.rates of the upstream to these numbers, or have the quotas raised", "the upstream %s allows fewer requests per second than dray may send: %s", r.Name, strings.Join(below, ", "))
	case len(above) > 0:
		return ok("dray stays below quotas of the upstream %s; limits.rates may be as high as %s", r.Name, strings.Join(above, ", "))
	}
	return ok("dray keeps to the quotas of the upstream %s", r.Name)
}

func (r Registry) push(ctx context.Context) Finding {
	if r.PushTo == nil {
		return unknown("--push-to REPOSITORY starts an upload and cancels it", "the right to push to the upstream %s was not tried", r.Name)
	}
	if err := r.PushTo(ctx); err != nil {
		return failed("give dray the rights of deploy/iam/push.json, or create the repository", "an upload to the upstream %s could not be started: %v", r.Name, err)
	}
	return ok("an upload to the upstream %s was started and cancelled", r.Name)
}

// head sends one HEAD without credentials, and follows no redirect.
func (r Registry) head(ctx context.Context, address string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := r.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	return resp, resp.Body.Close()
}

func (r Registry) reachable(a answered) Finding {
	switch {
	case a.err != nil:
		return failed(unreachable(a.err), "the registry of the upstream %s cannot be reached: %v", r.Name, a.err)
	case a.StatusCode >= http.StatusInternalServerError:
		return failed("wait, or look at the registry: dray serves what it holds meanwhile", "the registry of the upstream %s answers %s", r.Name, a.Status)
	}
	return ok("the registry of the upstream %s answers within %s", r.Name, a.took.Round(time.Millisecond))
}

// unreachable says what to do about a registry that did not answer.
func unreachable(err error) string {
	if _, plain := errors.AsType[tls.RecordHeaderError](err); plain {
		return "write http:// before the host in url, if this registry has no TLS"
	}
	return "look at the name in url, the network, the proxy, and the authorities that dray trusts (tls.ca_file)"
}

// unusable says what to do about a registry that dray cannot use with its credentials.
func (r Registry) unusable(err error) string {
	_, network := errors.AsType[*net.OpError](err)
	_, plain := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case network, plain:
		return "first let dray reach the registry"
	case r.AWS:
		return "look at the credentials that the AWS SDK finds, and at role_arn of the upstream"
	}
	return "look at credentials of the upstream: the username, and the password in password_file or password_env"
}

func (r Registry) credentials(ctx context.Context) Finding {
	if err := r.Hello(ctx); err != nil {
		return failed(r.unusable(err), "the upstream %s cannot be used: %v", r.Name, err)
	}
	return ok("the upstream %s accepts dray; rights to pull from its repositories were not tried", r.Name)
}

func (r Registry) clock(a answered) Finding {
	if a.err != nil {
		return unknown("", "the registry of the upstream %s does not tell the time, because it cannot be reached", r.Name)
	}
	theirs, err := http.ParseTime(a.Header.Get("Date"))
	if err != nil {
		return unknown("", "the registry of the upstream %s does not tell the time", r.Name)
	}
	switch skew := time.Since(theirs).Abs().Round(time.Second); {
	case skew >= mostSkew:
		return failed("set the clock, for example by chrony or systemd-timesyncd", "the clock of this machine is %s from that of the upstream %s", skew, r.Name)
	case skew >= someSkew:
		return warning("set the clock, for example by chrony or systemd-timesyncd", "the clock of this machine is %s from that of the upstream %s", skew, r.Name)
	}
	return ok("the clock agrees with that of the upstream %s", r.Name)
}

// Facts describes the Redis in which dray stores facts.
type Facts struct {
	Version, Policy string
	Took            time.Duration // the time for one command
	Refused         error         // the error of a command that dray needs and Redis refuses
}

func redis(ask func(context.Context) (Facts, error)) Check {
	return Check{"facts", "facts.redis", func(ctx context.Context) Finding {
		f, err := ask(ctx)
		switch {
		case err != nil:
			return failed("look at metadata.url and at Redis; without it, dray asks upstreams more often", "Redis does not answer: %v", err)
		case f.Refused != nil:
			return failed("give the user in metadata.url the rights that docs/fleet.md lists", "Redis %s refuses what dray does there: %v", f.Version, f.Refused)
		case f.Policy != "" && f.Policy != "noeviction":
			return warning("set maxmemory-policy noeviction: other policies drop facts and leases at any time", "Redis %s evicts by %s", f.Version, f.Policy)
		case f.Took > 20*time.Millisecond:
			return warning("use a Redis that is nearer", "Redis %s answers within %s", f.Version, f.Took.Round(time.Millisecond))
		}
		return ok("Redis %s answers within %s", f.Version, f.Took.Round(time.Microsecond))
	}}
}

// Bucket describes the bucket that mirrors share.
type Bucket struct {
	Unreached   error    // why the bucket cannot be used
	Missing     []string // settings that the bucket should have and does not have
	Unsupported []string // settings that the store does not support
	Unread      error    // why the settings cannot be read
}

// bucket returns the checks of the bucket. They share one call of inspect.
func bucket(inspect func(context.Context) Bucket) []Check {
	var once sync.Once
	var b Bucket
	on := func(look func() Finding) func(context.Context) Finding {
		return func(ctx context.Context) Finding {
			once.Do(func() { b = inspect(ctx) })
			return look()
		}
	}
	return []Check{
		{"bucket", "bucket.reached", on(func() Finding {
			if b.Unreached != nil {
				return failed("look at bucket.url, bucket.region and the rights of deploy/iam/bucket.json; pulls go to the registries meanwhile", "the bucket cannot be used: %v", b.Unreached)
			}
			return ok("the bucket answers; reading and writing objects was not tried")
		})},
		{"bucket", "bucket.settings", on(func() Finding {
			switch {
			case b.Unreached != nil:
				return unknown("", "the settings of the bucket are not known, because it cannot be used")
			case b.Unread != nil:
				return unknown("dray itself does not need this right; dray setup bucket --check does", "the settings of the bucket are not known: %v", b.Unread)
			case len(b.Missing) > 0 && len(b.Unsupported) > 0:
				return warning("run dray setup bucket", "the bucket does not have these settings: %s; and the store does not know these: %s", strings.Join(b.Missing, "; "), strings.Join(b.Unsupported, "; "))
			case len(b.Missing) > 0:
				return warning("run dray setup bucket", "the bucket does not have these settings: %s", strings.Join(b.Missing, "; "))
			case len(b.Unsupported) > 0:
				return unknown("let the store delete old objects and refuse strangers by its own means", "the store does not know these settings: %s", strings.Join(b.Unsupported, "; "))
			}
			return ok("the bucket has a lifecycle, and blocks public access")
		})},
	}
}

// ErrNoAnswer says that a service did not answer, and that dray does not need the answer. Other
// errors wrap it.
var ErrNoAnswer = errors.New("no answer")

// identity reports the ARN under which AWS knows dray.
func identity(who func(context.Context) (string, error)) Check {
	return Check{"AWS", "aws.identity", func(ctx context.Context) Finding {
		arn, err := who(ctx)
		if errors.Is(err, ErrNoAnswer) {
			return unknown("let this machine reach AWS STS if you want to know; registries do not need it", "AWS does not say who dray is: %v", err)
		}
		if err != nil {
			return failed("look at the environment, the profile or the role of this machine", "AWS does not say who dray is: %v", err)
		}
		return ok("dray is %s", arn)
	}}
}

// path says by which network route layers of ECR come from S3 to this machine.
func path(find func(context.Context) (ecr.Path, error)) Check {
	return Check{"AWS", "aws.path", func(ctx context.Context) Finding {
		p, err := find(ctx)
		hint := "create a gateway endpoint of S3 for the route table " + p.Table
		if p.Elsewhere {
			hint = "pull from registries in " + p.Region + ", such as replicas: an endpoint of S3 serves one region"
		}
		switch {
		case err != nil:
			return unknown("on EC2, allow ec2:DescribeRouteTables and ec2:DescribeVpcEndpoints if you want to know; dray does not need them", "the path to the layers of ECR is not known: %v", err)
		case p.Proxy != "":
			return ok("layers of ECR come through the proxy %s", p.Proxy)
		case p.Endpoint != "":
			return ok("layers of ECR in %s come through the VPC endpoint %s of S3, which costs nothing", p.Region, p.Endpoint)
		case p.Interface != "":
			return ok("layers of ECR in %s come through the interface endpoint %s of S3, which is paid for each gigabyte", p.Region, p.Interface)
		case strings.HasPrefix(p.Gateway, "nat-"):
			return warning(hint+"; docs/savings.md says what a NAT gateway costs", "layers of ECR come through the NAT gateway %s, which is paid for each gigabyte", p.Gateway)
		case p.Gateway == "":
			return warning(hint, "the route table %s of this machine has no default route, and no endpoint of S3 for these layers", p.Table)
		}
		return ok("layers of ECR come through %s", p.Gateway)
	}}
}

// listener says whether something listens at the address of a listener.
func listener(l config.Listener) Check {
	return Check{"listeners", "listener." + l.Name, func(ctx context.Context) Finding {
		address := l.Address
		if host, port, err := net.SplitHostPort(address); err == nil && !config.NamesHost(host) {
			address = net.JoinHostPort("localhost", port)
		}
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return warning("start dray", "nothing listens at %s: %v", l.Address, err)
		}
		_ = conn.Close() // nothing was sent
		return ok("something listens at %s", l.Address)
	}}
}

// running reports the health of a running dray.
func running(ready func(context.Context) (api.Readiness, error)) Check {
	return Check{"dray", "dray.ready", func(ctx context.Context) Finding {
		r, err := ready(ctx)
		if err != nil {
			return unknown("start dray, or set --admin", "%v", err)
		}
		var problems []string
		for _, c := range r.Checks {
			if c.Failed() {
				problems = append(problems, c.Name+": "+c.Error)
			}
		}
		switch r.Status {
		case api.Ready:
			return ok("the running dray is ready")
		case api.Degraded:
			return warning("docs/operating.md says what each check means", "the running dray is degraded: %v", strings.Join(problems, "; "))
		}
		return failed("docs/operating.md says what each check means", "the running dray is not ready: %v", strings.Join(problems, "; "))
	}}
}
