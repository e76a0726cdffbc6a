package fleet

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// headerTo is the ID of the member that a request is meant for. Another one may be at its address
// by now.
const headerTo = "Dray-To"

var (
	errOther   = errors.New("another member answers at its address")
	errUnknown = errors.New("its version does not know such requests")
)

// Handle has a handler answer the requests of other members whose path begins with prefix, which
// must not be among the paths of another handler. It is called before Serve, so that no request
// comes too early. The handler is called after the handshake has shown that the sender knows the
// secret, and only if both understand each other. It sees the whole path. The handler bounds the
// size of the body, and the time.
func (f *Fleet) Handle(prefix string, h http.Handler) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for other := range f.handlers {
		if strings.HasPrefix(prefix, other) || strings.HasPrefix(other, prefix) {
			panic("fleet: the paths below " + prefix + " and " + other + " overlap")
		}
	}
	f.handlers[prefix] = h
}

// handler returns the handler of a path, or nil.
func (f *Fleet) handler(path string) http.Handler {
	f.mu.Lock()
	defer f.mu.Unlock()
	for prefix, h := range f.handlers {
		if strings.HasPrefix(path, prefix) {
			return h
		}
	}
	return nil
}

// Sender returns the ID of the member that sent a request to a handler of [Fleet.Handle]. The
// sender knows the secret of the fleet; that it is this member is its own word.
func Sender(r *http.Request) string { return r.Header.Get(headerMember) }

// Send sends a request to a member, and returns its answer, which the caller closes. Of the URL of
// r, the path and the query count. The body of r is sent while it is read, and closed. Send does
// not try again, and has no bound on time but ctx and those of a connection. It returns an error if
// the member does not answer, is not the one that is meant, has no handler for the path, or speaks
// a protocol that is too far from this one's. Whatever a handler answers is no error, but for 501.
func (f *Fleet) Send(ctx context.Context, to Member, r *http.Request) (*http.Response, error) {
	resp, err := f.sendTo(ctx, to, r)
	if err != nil {
		return nil, fmt.Errorf("member %s at %s: %w", to.ID, to.Address, err)
	}
	return resp, nil
}

func (f *Fleet) sendTo(ctx context.Context, to Member, r *http.Request) (*http.Response, error) {
	if !f.near(to.Protocol) {
		f.warnOfProtocol(to.ID, to.Address, strconv.Itoa(to.Protocol))
		if r.Body != nil {
			_ = r.Body.Close() // as a request that is sent does
		}
		return nil, errProtocol
	}
	r = r.Clone(ctx)
	r.URL.Scheme, r.URL.Host, r.URL.User, r.URL.Fragment = "https", to.Address, nil, ""
	r.Host, r.RequestURI = "", ""
	r.Header.Set(headerTo, to.ID)
	resp, err := f.do(r)
	if err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode == http.StatusUpgradeRequired, !f.understands(resp.Header):
		f.warnOfProtocol(resp.Header.Get(headerMember), to.Address, resp.Header.Get(headerProtocol))
		err = errProtocol
	case resp.Header.Get(headerMember) != to.ID:
		err = errOther
	case resp.StatusCode == http.StatusNotImplemented:
		err = errUnknown
	}
	if err != nil {
		_ = resp.Body.Close() // nobody needs it
		return nil, err
	}
	return resp, nil
}

// do sends a request with the headers of this member.
func (f *Fleet) do(r *http.Request) (*http.Response, error) {
	r.Header.Set(headerProtocol, strconv.Itoa(f.o.Self.Protocol))
	r.Header.Set(headerMember, f.o.Self.ID)
	r.Header.Set(headerAddress, f.o.Self.Address)
	return f.client.Do(r)
}

// understands reports whether this member and the sender of a header understand each other.
func (f *Fleet) understands(h http.Header) bool {
	theirs, err := strconv.Atoi(h.Get(headerProtocol))
	return err == nil && f.near(theirs)
}

// near reports whether a protocol is this member's, or next to it.
func (f *Fleet) near(protocol int) bool {
	return protocol >= f.o.Self.Protocol-1 && protocol <= f.o.Self.Protocol+1
}

// warnOfProtocol logs that a member and this one do not understand each other.
func (f *Fleet) warnOfProtocol(member, address, protocol string) {
	f.log.Warn("a member of the fleet speaks another protocol, so neither reads from the other; versions of dray next to each other work together",
		"member", member, "address", address, "protocol", protocol, "own_protocol", f.o.Self.Protocol)
}
