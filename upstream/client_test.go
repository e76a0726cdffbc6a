package upstream_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"go.uber.org/goleak"

	"dray/upstream"
	"dray/upstream/auth"
	"dray/upstream/ecr"
	"dray/upstream/ecrtest"
	"dray/upstream/upstreamtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ecrRegistry is a fake ECR with everything dray puts in front of one.
type ecrRegistry struct {
	*ecrtest.Running
	client   *upstream.Client
	sink     *upstream.Creating
	tokens   *ecr.Tokens
	deleter  *ecr.Deleter
	recorder *upstreamtest.Recorder // behind the client
}

func startECR(t *testing.T, o ecrtest.Options) *ecrRegistry {
	t.Helper()
	run := ecrtest.Start(t, o)
	base := parse(t, run.RegistryURL)
	cfg := aws.Config{
		Credentials:  credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", ""),
		BaseEndpoint: aws.String(run.APIURL),
	}
	account, err := ecr.NewSession(cfg, nil).Open(ecr.RegistryOptions{Host: run.HostName()})
	if err != nil {
		t.Fatal(err)
	}
	plain := upstream.NewTransport(upstream.TransportOptions{})
	t.Cleanup(plain.CloseIdleConnections)
	r := &ecrRegistry{Running: run, tokens: account.Tokens, recorder: &upstreamtest.Recorder{Home: base.Host}}
	r.client = upstreamtest.NewClient(t, upstream.Options{
		Name: "ecr", Base: base, Host: run.HostName(), Quirks: ecr.Private(),
		Transport: auth.New(auth.Options{
			Base: r.recorder.Transport(plain), Origin: base, Host: run.HostName(),
			Credentials: account.Tokens.Credential, Expired: ecr.Expired,
		}),
	})
	r.sink = upstream.NewCreating(r.client, account.Creator)
	r.deleter = account.Deleter
	return r
}

func parse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestWellBehavedRegistry(t *testing.T) {
	c := upstreamtest.NewRegistry(t).Client(t, upstream.Quirks{})
	upstreamtest.TestSource(t, c, c, "suite")
	upstreamtest.TestSink(t, c, c, "suite")
}

func TestECR(t *testing.T) {
	for name, change := range map[string]func(*ecrtest.Switches){
		"likely": func(*ecrtest.Switches) {},
		"hang up and inline": func(s *ecrtest.Switches) {
			s.MissingRepositoryHangsUp, s.InlineConfigs, s.ManifestPutDigest = true, true, false
		},
	} {
		t.Run(name, func(t *testing.T) {
			sw := ecrtest.DefaultSwitches()
			change(&sw)
			r := startECR(t, ecrtest.Options{Switches: &sw})
			upstreamtest.TestSource(t, r.client, r.sink, "suite")
			upstreamtest.TestSink(t, r.sink, r.client, "suite")
			upstreamtest.TestDeleter(t, r.deleter, r.sink, r.client, "suite", upstreamtest.DeleterOptions{LastTag: true})
			if n := r.Count("GetAuthorizationToken"); n != 1 {
				t.Errorf("%d calls of GetAuthorizationToken, want 1", n)
			}
		})
	}
}

// TestBearerRegistry runs the suites against an anonymous registry with a token endpoint, one that
// refuses HEAD on blobs as ECR Public does.
func TestBearerRegistry(t *testing.T) {
	for name, head := range map[string]int{"hub": 0, "public": http.StatusUnauthorized} {
		t.Run(name, func(t *testing.T) {
			q := ecrtest.Hub()
			q.BlobHeadStatus = head
			sw := ecrtest.DefaultSwitches()
			sw.BlobDelete = true
			run := ecrtest.Start(t, ecrtest.Options{Quirks: q, Switches: &sw})
			base := parse(t, run.RegistryURL)
			plain := upstream.NewTransport(upstream.TransportOptions{})
			t.Cleanup(plain.CloseIdleConnections)
			c := upstreamtest.NewClient(t, upstream.Options{
				Base: base, Quirks: upstream.Quirks{BlobHeadUnsupported: head != 0},
				Transport: auth.New(auth.Options{Base: plain, Origin: base}),
			})
			upstreamtest.TestSource(t, c, c, "suite")
			upstreamtest.TestSink(t, c, c, "suite")
			upstreamtest.TestDeleter(t, c, c, c, "suite", upstreamtest.DeleterOptions{Blobs: true, LastTag: true})
		})
	}
}
