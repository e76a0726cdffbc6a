package ecrtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// faultJSON is a Fault with durations as text, such as "250ms".
type faultJSON struct {
	Fault
	Latency    string `json:"latency,omitempty"`
	RetryAfter string `json:"retryAfter,omitempty"`
}

func (f faultJSON) fault() (Fault, error) {
	out := f.Fault
	for text, to := range map[string]*time.Duration{f.Latency: &out.Latency, f.RetryAfter: &out.RetryAfter} {
		if text == "" {
			continue
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			return out, err
		}
		*to = d
	}
	return out, nil
}

func durationText(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// Control returns the JSON API by which tests control a server that runs in another process. It
// answers a wrong request with a 400 and a text.
//
//	GET    /                      the name of the Quirks, and the host name of the registry
//	GET    /counters              counts, by kind of request
//	GET    /log                   remembered requests
//	POST   /reset                 clear counts and log
//	GET    /idle                  answers when no request is in flight
//	GET    /faults                faults
//	POST   /faults                add a fault; answers {"id":n}
//	DELETE /faults, /faults/{id}  remove faults
//	PUT    /bandwidth             Bandwidth
//	GET    /switches              Switches
//	PUT    /switches              change the named switches
//	PUT    /denials               list of Denial
//	PUT    /quotas                operation → Quota; null as the body removes all quotas
//	POST   /clock                 {"advance":"13h"}; also applies lifecycle policies
//	POST   /expire/tokens         expire all tokens
//	POST   /forget/tokens         make all tokens invalid, as if they had never been issued
//	POST   /expire/urls           expire all signed URLs
//	POST   /expire/signer         end the session that signed all URLs so far
//	POST   /archive               {"repository":…,"digest":…,"archived":true}
//	GET    /images                images with pulls and lastRecordedPullTime
//	GET    /metrics               metrics that PutMetricData has received
//	GET    /uploads               counts of upload sessions: open, started, finished
func (s *Server) Control() http.Handler {
	mux := http.NewServeMux()
	get := func(path string, f func() any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { s.reply(w, f()) })
	}
	do := func(path string, f func(*http.Request) (any, error)) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			out, err := f(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			s.reply(w, out)
		})
	}
	plain := func(f func()) func(*http.Request) (any, error) {
		return func(*http.Request) (any, error) { f(); return struct{}{}, nil }
	}
	get("/{$}", func() any { return map[string]string{"personality": s.opts.Quirks.Name, "registry": s.HostName()} })
	get("/counters", func() any { return s.Counters() })
	get("/log", func() any { return s.Log() })
	get("/faults", func() any { return s.faultList() })
	get("/switches", func() any { return s.Switches() })
	get("/images", func() any { return s.Images() })
	get("/metrics", func() any { return s.Metrics() })
	get("/uploads", func() any { return s.Uploads() })
	do("POST /reset", plain(s.ResetCounters))
	do("GET /idle", func(r *http.Request) (any, error) {
		select {
		case <-s.Idle():
			return struct{}{}, nil
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	})
	do("DELETE /faults", plain(s.ClearFaults))
	do("POST /expire/tokens", plain(s.ExpireTokens))
	do("POST /forget/tokens", plain(s.ForgetTokens))
	do("POST /expire/urls", plain(s.ExpireURLs))
	do("POST /expire/signer", plain(s.ExpireSigner))
	do("POST /faults", s.controlAddFault)
	do("DELETE /faults/{id}", s.controlRemoveFault)
	do("PUT /bandwidth", setting(Bandwidth{}, s.SetBandwidth))
	do("PUT /denials", setting([]Denial{}, func(d []Denial) { s.SetDenials(d...) }))
	do("PUT /quotas", setting(map[string]Quota(nil), s.SetQuotas))
	do("PUT /switches", func(r *http.Request) (any, error) { return setting(s.Switches(), s.SetSwitches)(r) })
	do("POST /clock", s.controlClock)
	do("POST /archive", s.controlArchive)
	return mux
}

func (s *Server) reply(w http.ResponseWriter, v any) {
	if err := writeJSON(w, http.StatusOK, "application/json", v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// readControl decodes a body into the given value. Fields that the body does not name stay as they
// are.
func readControl[T any](r *http.Request, out *T) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(out); err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	return nil
}

// setting returns a handler that decodes a body into a copy of initial, calls apply with this copy,
// and answers with it.
func setting[T any](initial T, apply func(T)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		v := initial
		if err := readControl(r, &v); err != nil {
			return nil, err
		}
		apply(v)
		return v, nil
	}
}

func (s *Server) faultList() []faultJSON {
	out := []faultJSON{}
	for _, f := range s.Faults() {
		out = append(out, faultJSON{f, durationText(f.Latency), durationText(f.RetryAfter)})
	}
	return out
}

func (s *Server) controlAddFault(r *http.Request) (any, error) {
	var in faultJSON
	if err := readControl(r, &in); err != nil {
		return nil, err
	}
	f, err := in.fault()
	if err != nil {
		return nil, err
	}
	return map[string]int{"id": s.AddFault(f)}, nil
}

func (s *Server) controlRemoveFault(r *http.Request) (any, error) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil || !s.RemoveFault(id) {
		return nil, fmt.Errorf("no fault %q", r.PathValue("id"))
	}
	return struct{}{}, nil
}

func (s *Server) controlClock(r *http.Request) (any, error) {
	var in struct {
		Advance string `json:"advance"`
	}
	if err := readControl(r, &in); err != nil {
		return nil, err
	}
	d, err := time.ParseDuration(in.Advance)
	if err != nil {
		return nil, err
	}
	s.Advance(d)
	return map[string]time.Time{"now": s.now()}, nil
}

func (s *Server) controlArchive(r *http.Request) (any, error) {
	var in struct {
		Repository string `json:"repository"`
		Digest     string `json:"digest"`
		Archived   bool   `json:"archived"`
	}
	if err := readControl(r, &in); err != nil {
		return nil, err
	}
	if !s.Archive(in.Repository, in.Digest, in.Archived) {
		return nil, fmt.Errorf("no image %s@%s", in.Repository, in.Digest)
	}
	return struct{}{}, nil
}
