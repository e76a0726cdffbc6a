package ceilings

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"dray/cache/fleet"
)

// Path is the path to which members send pauses by POST.
const Path = "/pauses"

const (
	// tellWithin bounds the time for telling one member, unless Options.Patience is longer.
	tellWithin = time.Second
	// tellAtOnce bounds the members that are told at the same time.
	tellAtOnce = 64
	// maxTold bounds the size of a message, in bytes.
	maxTold = 64 << 10
	// sameEnd is the least extension of a pause that is worth another message.
	sameEnd = 100 * time.Millisecond
)

// pause is an element of a message. It says for how long an operation of a registry pauses.
type pause struct {
	Identity  string `json:"identity"`
	Operation string `json:"operation"`
	ForMS     int64  `json:"for_ms"`
}

// paused names an operation of a registry.
type paused struct{ identity, operation string }

// throttled records that the registry has refused a request of this member. It does not block.
func (c *Ceilings) throttled(at paused, pause time.Duration) {
	until := time.Now().Add(pause)
	c.mu.Lock()
	defer c.mu.Unlock()
	if pause <= 0 || until.Sub(c.told[at]) < sameEnd {
		return
	}
	c.m.heard.WithLabelValues("own").Inc()
	c.told[at], c.pauses[at] = until, until
	signal(c.tell)
}

// pending removes and returns the pauses to send to other members.
func (c *Ceilings) pending() (all []pause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at, until := range c.pauses {
		if left := time.Until(until).Milliseconds(); left > 0 {
			all = append(all, pause{at.identity, at.operation, left})
		}
	}
	clear(c.pauses)
	for at, until := range c.told {
		if time.Now().After(until) {
			delete(c.told, at)
		}
	}
	return all
}

// tellOthers runs until ctx ends, and sends new pauses to the other members. A member that
// misses the message learns of the pause when the registry refuses its request.
func (c *Ceilings) tellOthers(ctx context.Context) {
	for {
		select {
		case <-c.tell:
		case <-ctx.Done():
			return
		}
		all := c.pending()
		if len(all) == 0 {
			continue
		}
		body, err := json.Marshal(all)
		if err != nil {
			continue // cannot happen for texts and numbers
		}
		slots := make(chan struct{}, tellAtOnce)
		var telling sync.WaitGroup
		for _, m := range c.o.Fleet.Live() {
			if m.ID == c.o.Self {
				continue
			}
			slots <- struct{}{}
			telling.Go(func() {
				defer func() { <-slots }()
				if err := c.tellOne(ctx, m, body); err != nil && ctx.Err() == nil {
					c.o.Logger.Debug("ceilings: a pause was not sent to a member", "error", err)
				}
			})
		}
		telling.Wait()
	}
}

func (c *Ceilings) tellOne(ctx context.Context, to fleet.Member, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, max(tellWithin, c.o.Patience))
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://member"+Path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.o.Fleet.Send(ctx, to, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("member %s answered %s", to.ID, resp.Status)
	}
	return nil
}

// ServeHTTP applies the pauses that another member has sent.
func (c *Ceilings) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var all []pause
	if r.Method != http.MethodPost || json.NewDecoder(http.MaxBytesReader(w, r.Body, maxTold)).Decode(&all) != nil {
		http.Error(w, "not a list of pauses", http.StatusBadRequest)
		return
	}
	for _, p := range all {
		if p.ForMS <= 0 {
			continue
		}
		for _, u := range c.current() {
			if u.Identity == p.Identity {
				u.Limiter.Pause(p.Operation, time.Duration(min(p.ForMS, time.Hour.Milliseconds()))*time.Millisecond)
				c.m.heard.WithLabelValues("member").Inc()
			}
		}
	}
	w.WriteHeader(http.StatusNoContent)
}
