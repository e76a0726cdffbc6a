package ecrtest

import (
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// session is the result of AssumeRole or AssumeRoleWithWebIdentity.
type session struct {
	principal string // ARN of the assumed role
	expires   time.Time
}

var roleARN = regexp.MustCompile(`^arn:aws[a-z-]*:iam::(\d{12}):role/(?:.*/)?([\w+=,.@-]+)$`)

// stsAnswer is the answer of all operations. Result has the fields of the called operation.
type stsAnswer struct {
	XMLName  xml.Name
	Result   stsResult
	Metadata struct {
		RequestID string `xml:"RequestId"`
	} `xml:"ResponseMetadata"`
}

type stsResult struct {
	XMLName     xml.Name
	Credentials *stsCredentials `xml:"Credentials,omitempty"`
	Role        *stsRole        `xml:"AssumedRoleUser,omitempty"`
	Account     string          `xml:"Account,omitempty"`
	Arn         string          `xml:"Arn,omitempty"`
	UserID      string          `xml:"UserId,omitempty"`
}

type stsCredentials struct{ AccessKeyId, SecretAccessKey, SessionToken, Expiration string }

type stsRole struct{ Arn, AssumedRoleId string }

// stsKind returns the action of a Query request. It keeps the parsed form in r for the handler.
func stsKind(r *http.Request) Kind {
	if r.ParseForm() != nil || r.PostForm.Get("Action") == "" {
		return KindUnknown
	}
	return Kind(r.PostForm.Get("Action"))
}

// stsHandler serves the Query protocol of STS: GetCallerIdentity, AssumeRole and
// AssumeRoleWithWebIdentity.
func (s *Server) stsHandler() http.Handler {
	return s.observe(surface{"api", stsKind, writeSTSError, "Throttling", "InternalFailure"}, func(w http.ResponseWriter, r *http.Request) {
		action := string(stsKind(r))
		result, err := s.callSTS(action, r)
		if err != nil {
			writeSTSError(w, s.wire(err))
			return
		}
		answer := stsAnswer{XMLName: xml.Name{Space: "https://sts.amazonaws.com/doc/2011-06-15/", Local: action + "Response"}, Result: *result}
		answer.Result.XMLName.Local = action + "Result"
		answer.Metadata.RequestID = newUUID()
		body, err := xml.Marshal(answer)
		if err != nil {
			writeSTSError(w, s.wire(err))
			return
		}
		w.Header().Set("Content-Type", "text/xml")
		_, _ = w.Write(body) // fails only if the client is gone
	})
}

func writeSTSError(w http.ResponseWriter, e *wireError) {
	if e.Hangup {
		panic(http.ErrAbortHandler) // closes the connection without an answer
	}
	type inner struct{ Type, Code, Message string }
	body, _ := xml.Marshal(struct {
		XMLName xml.Name `xml:"ErrorResponse"`
		Error   inner
	}{Error: inner{"Sender", e.Code, e.Message}})
	for k, v := range e.Header {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(e.Status)
	_, _ = w.Write(body) // fails only if the client is gone
}

func (s *Server) callSTS(action string, r *http.Request) (*stsResult, error) {
	caller := apiCall{principal: "anonymous"}
	if action != "AssumeRoleWithWebIdentity" {
		var err error
		if caller, err = s.signedCall(r, "sts"); err != nil {
			return nil, err
		}
	}
	form := r.PostForm
	switch action {
	case "GetCallerIdentity":
		return &stsResult{Account: accountOf(caller.principal, s.opts.Account), Arn: caller.principal, UserID: "AIDAEXAMPLE"}, nil
	case "AssumeRole":
		if s.forbids(caller.principal, "sts:AssumeRole", form.Get("RoleArn")) || s.opts.ExternalIDs[form.Get("RoleArn")] != form.Get("ExternalId") {
			return nil, refuse(http.StatusForbidden, "AccessDenied", "User: %s is not authorized to perform: sts:AssumeRole on resource: %s", caller.principal, form.Get("RoleArn"))
		}
	case "AssumeRoleWithWebIdentity":
		if form.Get("WebIdentityToken") == "" || s.forbids(caller.principal, "sts:AssumeRoleWithWebIdentity", form.Get("RoleArn")) {
			return nil, refuse(http.StatusForbidden, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
		}
	default:
		return nil, refuse(http.StatusBadRequest, "InvalidAction", "Could not find operation %s", action)
	}
	return s.assume(form.Get("RoleArn"), form.Get("RoleSessionName"), form.Get("DurationSeconds"))
}

// assume starts a session of a role. STS allows 15 minutes to 12 hours; the default is an hour.
func (s *Server) assume(role, name, seconds string) (*stsResult, error) {
	m := roleARN.FindStringSubmatch(role)
	life, err := strconv.Atoi(orDefault(seconds, "3600"))
	if m == nil || name == "" || err != nil || life < 900 || life > 43200 {
		return nil, refuse(http.StatusBadRequest, "ValidationError", "RoleArn, RoleSessionName or DurationSeconds is not valid")
	}
	key := fmt.Sprintf("ASIA%016X", randomBytes(8))
	arn := "arn:aws:sts::" + m[1] + ":assumed-role/" + m[2] + "/" + name
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.nowLocked()
	maps.DeleteFunc(s.sessions, func(_ string, x session) bool { return now.Sub(x.expires) > time.Hour })
	s.sessions[key] = session{arn, now.Add(time.Duration(life) * time.Second)}
	return &stsResult{
		Credentials: &stsCredentials{key, strings.Repeat("s", 40), fmt.Sprintf("%X", randomBytes(64)), s.sessions[key].expires.UTC().Format(time.RFC3339)},
		Role:        &stsRole{arn, "AROAEXAMPLE:" + name},
	}, nil
}

// principalOf returns the principal of an access key.
func (s *Server) principalOf(key string) (string, error) {
	s.mu.Lock()
	x, assumed := s.sessions[key]
	now := s.nowLocked()
	s.mu.Unlock()
	switch arn, known := s.opts.Principals[key]; {
	case assumed && now.After(x.expires):
		return "", exception("ExpiredTokenException", "The security token included in the request is expired")
	case assumed:
		return x.principal, nil
	case known:
		return arn, nil
	case s.opts.Principals == nil && !strings.HasPrefix(key, "ASIA"):
		return "arn:aws:iam::" + s.opts.Account + ":user/dray", nil
	}
	return "", exception("UnrecognizedClientException", "The security token included in the request is invalid.")
}
