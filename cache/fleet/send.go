package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
)

var (
	errOther   = errors.New("another member answers at its address")
	errUnknown = errors.New("its version does not know such requests")
)

// peers sends requests to other members.
type peers struct {
	*roster
	*bans
	strangers strangers
	client    *http.Client
	patience  Patience
	reading   reading
	m         *metrics
	log       *slog.Logger
}

func newPeers(o Options, m *metrics, log *slog.Logger) *peers {
	dialer := net.Dialer{Timeout: o.Patience.Dial}
	return &peers{
		roster: newRoster(o.Self, o.Upstreams), patience: o.Patience, m: m, log: log,
		strangers: strangers{all: map[string]time.Time{}},
		bans:      &bans{counter: m.bans, log: log, banned: map[string]time.Time{}, alone: map[digest.Digest]time.Time{}},
		client: &http.Client{
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				DialContext: dialer.DialContext, TLSClientConfig: clientTLS(o.Keys), TLSHandshakeTimeout: 2 * o.Patience.Dial,
				TLSNextProto:       map[string]func(string, *tls.Conn) http.RoundTripper{}, // HTTP/1.1 costs less for large bodies
				DisableCompression: true, MaxIdleConnsPerHost: maxIdle, IdleConnTimeout: time.Minute, ExpectContinueTimeout: continueWithin,
			},
		},
	}
}

// Sender returns the ID of the member that sent a request to a handler of [Fleet.Handle]. The
// handshake proves that the sender knows the secret of the fleet. It does not prove the ID.
func Sender(r *http.Request) string { return r.Header.Get(headerMember) }

// Send sends a request to a member, and returns its answer. The caller closes the body of the
// answer. Send uses only the path and the query of r.URL. It streams the body of r, and closes it.
// Send does not retry. Only ctx and the timeouts of a connection bound the time of a request. Send
// returns an error if the member does not answer, if another member answers at the address, if the
// member has no handler for the path, or if its protocol is too far from the protocol of this
// member. A handler may answer with any status except 426 and 501, for which Send returns an error
// instead of the answer.
func (p *peers) Send(ctx context.Context, to Member, r *http.Request) (*http.Response, error) {
	resp, err := p.sendTo(ctx, to, r)
	if err != nil {
		return nil, fmt.Errorf("member %s at %s: %w", to.ID, to.Address, err)
	}
	return resp, nil
}

func (p *peers) sendTo(ctx context.Context, to Member, r *http.Request) (*http.Response, error) {
	if !p.near(to.Protocol) {
		p.warnOfProtocol(to.ID, to.Address, strconv.Itoa(to.Protocol))
		if r.Body != nil {
			_ = r.Body.Close() // as sending the request would do
		}
		return nil, ErrProtocol
	}
	r = r.Clone(ctx)
	r.URL.Scheme, r.URL.Host, r.URL.User, r.URL.Fragment = "https", to.Address, nil, ""
	r.Host, r.RequestURI = "", ""
	r.Header.Set(headerTo, to.ID)
	resp, err := p.do(r)
	if err != nil {
		return nil, err
	}
	switch {
	case ctx.Err() != nil:
		// An answer may still come after ctx has ended. The member may have noticed this end, and
		// answered only because of it. So sendTo drops the answer.
		err = context.Cause(ctx)
	case resp.StatusCode == http.StatusUpgradeRequired, !p.understands(resp.Header):
		p.warnOfProtocol(resp.Header.Get(headerMember), to.Address, resp.Header.Get(headerProtocol))
		err = ErrProtocol
	case resp.Header.Get(headerMember) != to.ID:
		err = errOther
	case resp.StatusCode == http.StatusNotImplemented:
		err = errUnknown
	}
	if err != nil {
		_ = resp.Body.Close() // nobody needs the answer
		return nil, err
	}
	return resp, nil
}

// do sends a request with the headers of this member.
func (p *peers) do(r *http.Request) (*http.Response, error) {
	r.Header.Set(headerProtocol, strconv.Itoa(p.me.Protocol))
	r.Header.Set(headerMember, p.me.ID)
	r.Header.Set(headerAddress, p.me.Address)
	r.Header.Set(headerZone, p.zone())
	return p.client.Do(r)
}

// understands reports whether this member and the sender of a header understand each other.
func (p *peers) understands(h http.Header) bool {
	theirs, err := strconv.Atoi(h.Get(headerProtocol))
	return err == nil && p.near(theirs)
}

// [peers.near] reports whether the number of a protocol differs from this member's number by at
// most one.
func (p *peers) near(protocol int) bool {
	return protocol >= p.me.Protocol-1 && protocol <= p.me.Protocol+1
}

// warnOfProtocol logs that a member and this one do not understand each other. It logs this for the
// same member at most once in the time sayFarAgain.
func (p *peers) warnOfProtocol(member, address, protocol string) {
	if !p.strangers.first(member) {
		return
	}
	p.log.Warn("a member of the fleet speaks another protocol, so the two members do not read from each other; adjacent versions of dray work together",
		"member", member, "address", address, "protocol", protocol, "own_protocol", p.me.Protocol)
}
