package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// trace is the requests to a cache, in order.
type trace struct {
	objects  []object
	requests []int32 // each is an index into the slice objects
}

// object is content under a digest.
type object struct {
	digest digest.Digest
	size   int64 // in bytes
}

// footprint returns the disk space of all objects together, in bytes.
func (t *trace) footprint() int64 {
	var sum int64
	for _, o := range t.objects {
		sum += blocks(o.size)
	}
	return sum
}

// blocks returns the disk space that n bytes need, in bytes, as dray counts it.
func blocks(n int64) int64 {
	const block = 4096
	return max(block, (n+block-1)/block*block)
}

// reader makes a trace from logs.
type reader struct {
	trace
	known   map[digest.Digest]int32
	fetches map[rangedFetch]time.Time
	// skipped counts lines that are not a successful request for content. unknown counts successful
	// requests for content whose line has no digest or no size.
	skipped, unknown int
}

// rangedFetch identifies the fetch of one object in several requests for ranges. Clients such as
// containerd fetch in this way.
type rangedFetch struct {
	client string
	object int32
}

// sameFetch is the longest time between two requests of a [rangedFetch]. After a longer time, the
// next request counts as a new fetch.
const sameFetch = time.Minute

func newReader() *reader {
	return &reader{known: map[digest.Digest]int32{}, fetches: map[rangedFetch]time.Time{}}
}

// entry is a request for content, as a line of a log has it.
type entry struct {
	at     time.Time
	client string
	digest digest.Digest
	size   int64
	ranged bool
}

// read adds the requests of a log. Each line is from dray's own log, as text or as JSON, or is CSV
// of digest and size.
func (r *reader) read(log io.Reader) error {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		var e entry
		var is bool
		switch {
		case len(line) == 0 || line[0] == '#':
			continue
		case line[0] == '{':
			e, is = fromJSON(line)
		case bytes.Contains(line, []byte("msg=")):
			e, is = fromText(string(line))
		default:
			e, is = fromCSV(string(line))
		}
		switch {
		case !is:
			r.skipped++
		case e.digest.Validate() != nil || e.size < 0:
			r.unknown++
		default:
			r.add(e)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	return nil
}

func (r *reader) add(e entry) {
	i, ok := r.known[e.digest]
	if !ok {
		i = int32(len(r.objects))
		r.known[e.digest] = i
		r.objects = append(r.objects, object{e.digest, e.size})
	}
	// A line without a size may be about an interrupted answer, and then states too few bytes.
	r.objects[i].size = max(r.objects[i].size, e.size)
	if e.ranged {
		p := rangedFetch{e.client, i}
		last, begun := r.fetches[p]
		r.fetches[p] = e.at
		if begun && e.at.Sub(last) < sameFetch {
			return
		}
	}
	r.requests = append(r.requests, i)
}

// fromJSON reads a line of dray's log in JSON.
func fromJSON(line []byte) (entry, bool) {
	var l struct {
		Time              time.Time
		Msg, Kind, Method string
		Client, Reference string
		Digest            digest.Digest
		Status            int
		Bytes             int64
		Size              *int64
	}
	if json.Unmarshal(line, &l) != nil || l.Msg != "request" {
		return entry{}, false
	}
	f := fields{"kind": l.Kind, "method": l.Method, "client": l.Client, "reference": l.Reference, "digest": string(l.Digest),
		"status": strconv.Itoa(l.Status), "bytes": strconv.FormatInt(l.Bytes, 10), "time": l.Time.Format(time.RFC3339Nano)}
	if l.Size != nil {
		f["size"] = strconv.FormatInt(*l.Size, 10)
	}
	return f.entry()
}

// fromText reads a line of dray's log as text. [fields.entry] uses no quoted field, but fromText
// has to know where such a field ends.
func fromText(line string) (entry, bool) {
	f := fields{}
	for line != "" {
		name, rest, ok := strings.Cut(line, "=")
		if !ok {
			break
		}
		var value string
		if quoted, err := strconv.QuotedPrefix(rest); err == nil && strings.HasPrefix(rest, `"`) {
			value, rest = quoted, rest[len(quoted):]
		} else {
			value, _, _ = strings.Cut(rest, " ")
			rest = rest[len(value):]
		}
		f[name], line = value, strings.TrimLeft(rest, " ")
	}
	if f["msg"] != "request" {
		return entry{}, false
	}
	return f.entry()
}

// fields are the values in a line of dray's log.
type fields map[string]string

// entry returns the request in a line. It returns false for a request that is not for content or
// has failed.
func (f fields) entry() (entry, bool) {
	content := f["kind"] == "blob" || f["kind"] == "manifest"
	if !content || f["method"] != "GET" || f["status"] != "200" && f["status"] != "206" {
		return entry{}, false
	}
	e := entry{digest: digest.Digest(f["digest"]), size: -1, ranged: f["status"] == "206", client: f["client"]}
	if e.digest == "" {
		e.digest = digest.Digest(f["reference"])
	}
	if host, _, err := net.SplitHostPort(e.client); err == nil {
		e.client = host
	}
	e.at, _ = time.Parse(time.RFC3339Nano, f["time"])
	size := f["size"]
	if size == "" {
		size = f["bytes"] // dray logs no size that is unknown or equals the bytes sent
	}
	if n, err := strconv.ParseInt(size, 10, 64); err == nil {
		e.size = n
	}
	return e, true
}

// fromCSV reads "digest,size". It ignores further columns, and a first line with names.
func fromCSV(line string) (entry, bool) {
	columns := strings.SplitN(line, ",", 3)
	if len(columns) < 2 || strings.TrimSpace(columns[0]) == "digest" {
		return entry{}, false
	}
	e := entry{digest: digest.Digest(strings.TrimSpace(columns[0])), size: -1}
	if n, err := strconv.ParseInt(strings.TrimSpace(columns[1]), 10, 64); err == nil {
		e.size = n
	}
	return e, true
}
