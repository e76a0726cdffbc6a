package writer

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"dray/mirror/identity"
	"dray/mirror/proxied"
	"dray/upstream/oci"
)

// Path is the prefix of the paths that [Writers.ServeHTTP] handles on the members' listener.
const Path = "/push/"

const (
	requestPath = Path + "request" // a request of a client, with the client's method
	alivePath   = Path + "alive"   // HEAD is answered by 204
)

// The headers of requests that are passed on, and of their answers.
const (
	headerRequest = "Dray-Request" // an envelope
	headerWorker  = "Dray-Worker"  // the ID of the member that answers
	headerMoved   = "Dray-Moved"   // the lease of the writer, in the answer of a member that is not the writer
	// headerRepository is the Repository of the envelope. Members do not send this header: ServeHTTP
	// adds it to the request before the listener gets the request.
	headerRepository = "Dray-Repository"
)

// envelope describes a request that a member passes on. A receiver ignores fields that it does not
// know.
type envelope struct {
	Listener string `json:"listener"`
	// Repository is the text of the repository's key, "" if the request is about no repository.
	Repository string `json:"repository,omitempty"`
	URI        string `json:"uri"`
	Host       string `json:"host"`
	// External is the external_url of the listener that the client has reached.
	External string          `json:"external,omitempty"`
	TLS      bool            `json:"tls,omitempty"`
	Client   string          `json:"client"`          // address
	Proxy    string          `json:"proxy,omitempty"` // address of a trusted proxy
	User     string          `json:"user,omitempty"`
	Granted  []identity.Need `json:"granted,omitempty"`
}

// encode returns a value as the text of a header.
func encode(v any) string {
	text, _ := json.Marshal(v) // never fails, because the values are plain structs
	return base64.RawURLEncoding.EncodeToString(text)
}

func decode(text string, v any) error {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(raw, v)
	}
	if err != nil {
		return fmt.Errorf("header of another member: %w", err)
	}
	return nil
}

// Receiver is a listener that answers requests that clients have sent to other members.
type Receiver interface {
	// TakesPushes reports whether clients may push through the listener, if they have the rights.
	TakesPushes() bool
	// ServePassed answers a request of a caller whom another member has authenticated. externalURL is
	// the external URL by which the client has reached that member.
	ServePassed(w http.ResponseWriter, r *http.Request, by identity.Vouched, externalURL string)
}

// Receive registers a Receiver under the name of a listener. The Receiver answers the requests that
// clients have sent to the listener with this name at another member. Receive replaces an earlier
// registration. w may be nil.
func (w *Writers) Receive(listener string, by Receiver) {
	if w != nil {
		w.receivers.Store(listener, by)
	}
}

// receiver returns the listener that has the given name. A listener without a configured name has
// its address as its name, which differs between members. So if no listener has the given name,
// receiver returns the only listener that accepts pushes, or nil if there is not exactly one.
func (w *Writers) receiver(name string) (only Receiver) {
	if by, ok := w.receivers.Load(name); ok {
		return by.(Receiver)
	}
	n := 0
	for _, by := range w.receivers.Range {
		if by := by.(Receiver); by.TakesPushes() {
			n, only = n+1, by
		}
	}
	if n != 1 {
		return nil
	}
	return only
}

// ServeHTTP answers a request of another member. The caller has authenticated the member.
func (w *Writers) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set(headerWorker, w.o.Self.ID)
	var e envelope
	u, err := (*url.URL)(nil), error(nil)
	if r.URL.Path == requestPath {
		if err = decode(r.Header.Get(headerRequest), &e); err == nil {
			u, err = url.ParseRequestURI(e.URI)
		}
	}
	switch {
	case r.URL.Path == alivePath:
		rw.WriteHeader(http.StatusNoContent)
		return
	case r.URL.Path != requestPath || err != nil:
		rw.Header().Del(headerWorker)
		http.Error(rw, "not a request of a member", http.StatusBadRequest)
		return
	}
	by := w.receiver(e.Listener)
	if by == nil {
		oci.WriteError(rw, oci.ErrUnavailable.With("the member of the fleet that works on the repository has no listener %q; give the listeners of all members the same names", e.Listener))
		return
	}
	passed := r.Clone(proxied.WithPeer(r.Context(), e.Proxy))
	passed.URL, passed.RequestURI, passed.Host, passed.RemoteAddr = u, e.URI, e.Host, e.Client
	if !e.TLS {
		passed.TLS = nil
	}
	for name := range passed.Header {
		if strings.HasPrefix(name, "Dray-") {
			delete(passed.Header, name)
		}
	}
	passed.Header.Set(headerRepository, e.Repository)
	body := &observed{ReadCloser: r.Body}
	passed.Body = body
	defer body.drain(rw)
	by.ServePassed(rw, passed, identity.Vouched{Principal: identity.Principal{Name: e.User}, Granted: e.Granted}, e.External)
}

// drainWithin bounds the time for which drain reads the rest of a body.
const drainWithin = 5 * time.Second

// observed records how far the body of a request has been read.
type observed struct {
	io.ReadCloser
	begun, over bool
}

// Read implements io.Reader.
func (o *observed) Read(p []byte) (int, error) {
	o.begun = true
	n, err := o.ReadCloser.Read(p)
	o.over = o.over || err != nil
	return n, err
}

// drain reads the rest of a body of which the listener read only a part before it answered. It
// stops when the other member has the answer and closes the connection. After "Expect:
// 100-continue", net/http does not read the rest: without drain, net/http would reset the
// connection at once, and the answer could be lost.
func (o *observed) drain(rw http.ResponseWriter) {
	if !o.begun || o.over {
		return
	}
	c := http.NewResponseController(rw)
	if c.Flush() == nil && c.SetReadDeadline(time.Now().Add(drainWithin)) == nil {
		_, _ = io.Copy(io.Discard, o.ReadCloser) // an error does not matter, because the connection ends after this answer
	}
}
