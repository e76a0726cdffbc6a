package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"testing"

	"dray/upstream"
	"dray/upstream/ecr"
	"dray/upstream/oci"
)

// A refusal of the content lasts. A registry that throttles, fails or does not answer refuses
// nothing.
func TestRefused(t *testing.T) {
	for _, test := range []struct {
		err                error
		refused, transient bool
	}{
		{oci.ErrManifestInvalid, true, false},
		{fmt.Errorf("put: %w", oci.ErrDenied), true, false},
		{oci.ErrManifestBlobUnknown.Because(upstream.ErrPartsMissing), true, false},
		{oci.ErrTooManyRequests, false, true},
		{oci.ErrUnknown.WithStatus(408), false, true}, // of a load balancer that has waited too long for the request
		{oci.ErrTooManyRequests.Because(upstream.ErrBusy), false, true},
		{oci.ErrUnavailable, false, true},
		{oci.ErrUnknown.WithStatus(502).Because(upstream.ErrCorrupt), false, true},
		{oci.ErrDenied.Because(upstream.ErrCredentials), false, true},
		{upstream.ErrUnreachable, false, true},
		{context.Canceled, false, false},
		{errors.New("disk full"), false, false},
	} {
		if got := upstream.Refused(test.err); got != test.refused {
			t.Errorf("Refused(%v) = %v", test.err, got)
		}
		if got := upstream.Transient(test.err); got != test.transient {
			t.Errorf("Transient(%v) = %v", test.err, got)
		}
	}
}

// A registry whose name has no address is told from one that gives no answer, and for ECR the
// advice is about the region.
func TestUnknownHost(t *testing.T) {
	const registry = "123456789012.dkr.ecr.eu-nrth-1.amazonaws.com"
	for _, c := range []struct {
		quirks upstream.Quirks
		err    error
		want   string
	}{
		{ecr.Private(), &net.DNSError{Name: registry, IsNotFound: true}, "cannot be reached, because " + registry + " has no address; look at the name of the registry, above all at the region in it"},
		{upstream.Quirks{}, &net.DNSError{Name: registry, IsNotFound: true}, "cannot be reached, because " + registry + " has no address; look at the name of the registry"},
		{ecr.Private(), &net.DNSError{Name: "vpce.example", IsNotFound: true}, "cannot be reached, because vpce.example has no address"},
		{ecr.Private(), &net.DNSError{Name: registry, IsTimeout: true}, "cannot be reached"},
		{ecr.Private(), errors.New("connection refused"), "cannot be reached"},
	} {
		transport := upstream.NewTransport(upstream.TransportOptions{
			Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
			Dial: func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Err: c.err}
			},
		})
		client, err := upstream.New(upstream.Options{Name: "ecr", Base: parse(t, "https://"+registry), Quirks: c.quirks, Transport: transport})
		if err != nil {
			t.Fatal(err)
		}
		err = client.Hello(t.Context())
		if e, ok := errors.AsType[*oci.Error](err); !ok || e.Message != "the upstream registry ecr "+c.want || !errors.Is(err, upstream.ErrUnreachable) {
			t.Errorf("%v: %v", c.err, err)
		}
	}
}
