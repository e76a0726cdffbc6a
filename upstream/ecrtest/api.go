package ecrtest

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	targetPrefix  = "AmazonEC2ContainerRegistry_V20150921."
	publicTarget  = "SpencerFrontendService.GetAuthorizationToken" // the operation of ECR Public
	jsonProtocol  = "application/x-amz-json-1.1"
	maxAPIRequest = 32 << 20 // bytes; above every limit in ECR's API model
)

// apiCall is one signed request to the JSON API.
type apiCall struct {
	op        string
	principal string // ARN
	region    string
	body      []byte
}

// API returns the handler of the AWS APIs: ECR's JSON 1.1 API, GetAuthorizationToken of ECR Public,
// CloudWatch's PutMetricData in CBOR, and the role operations of STS. The handler tells them apart
// by path and headers, so AWS_ENDPOINT_URL_ECR, _CLOUDWATCH and _STS may all be its address.
func (s *Server) API() http.Handler {
	ecr := s.observe(surface{"api", apiKind, writeAPIError, "ThrottlingException", "ServerException"}, s.serveAPI)
	metrics, sts, public := s.metricsHandler(), s.stsHandler(), s.publicHandler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("X-Amz-Target") == publicTarget:
			public.ServeHTTP(w, r)
		case strings.HasSuffix(r.URL.Path, metricPath):
			metrics.ServeHTTP(w, r)
		case strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded"):
			sts.ServeHTTP(w, r)
		default:
			ecr.ServeHTTP(w, r)
		}
	})
}

func apiKind(r *http.Request) Kind {
	op, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), targetPrefix)
	if !ok || op == "" {
		return KindUnknown
	}
	return Kind(op)
}

// writeAPIError writes an error of the JSON 1.1 protocol.
func writeAPIError(w http.ResponseWriter, e *wireError) {
	if e.Hangup {
		panic(http.ErrAbortHandler) // closes the connection without an answer
	}
	body, _ := json.Marshal(map[string]string{"__type": e.Code, "message": e.Message})
	h := w.Header()
	for k, v := range e.Header {
		h[k] = v
	}
	h.Set("Content-Type", jsonProtocol)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(e.Status)
	_, _ = w.Write(body) // fails only if the client is gone
}

// exception returns an error of the API's model. All errors of the model except ServerException
// have the status 400.
func exception(class, format string, args ...any) *wireError {
	return refuse(http.StatusBadRequest, class, format, args...)
}

func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Amzn-Requestid", newUUID())
	out, err := s.callAPI(r)
	if err == nil {
		err = writeJSON(w, http.StatusOK, jsonProtocol, out)
	}
	if err == nil {
		return
	}
	e, ok := errors.AsType[*wireError](err)
	if !ok {
		s.opts.Logger.Error("api call failed", "error", err)
		e = refuse(http.StatusInternalServerError, "ServerException", "internal error")
	}
	writeAPIError(w, e)
}

func (s *Server) callAPI(r *http.Request) (any, error) {
	handle, ok := s.operations()[string(apiKind(r))]
	if !ok || r.Method != http.MethodPost {
		return nil, exception("UnknownOperationException", "")
	}
	c, err := s.signedCall(r, "ecr")
	if err != nil {
		return nil, err
	}
	c.op = string(apiKind(r))
	if !s.throttle.allow(c.op) {
		return nil, exception("ThrottlingException", "Rate exceeded")
	}
	if c.body, err = io.ReadAll(io.LimitReader(r.Body, maxAPIRequest)); err != nil {
		return nil, hangup()
	}
	return handle(c)
}

// operations returns the handlers of the API by operation.
func (s *Server) operations() map[string]func(apiCall) (any, error) {
	return map[string]func(apiCall) (any, error){
		"GetAuthorizationToken":       s.getAuthorizationToken,
		"DescribeRepositories":        s.describeRepositories,
		"CreateRepository":            s.createRepositoryCall,
		"DeleteRepository":            s.deleteRepository,
		"PutLifecyclePolicy":          s.putLifecyclePolicy,
		"GetLifecyclePolicy":          s.getLifecyclePolicy,
		"SetRepositoryPolicy":         s.setRepositoryPolicy,
		"GetRepositoryPolicy":         s.getRepositoryPolicy,
		"PutAccountSetting":           s.putAccountSetting,
		"GetAccountSetting":           s.getAccountSetting,
		"BatchCheckLayerAvailability": s.batchCheckLayers,
		"GetDownloadUrlForLayer":      s.getDownloadURL,
		"DescribeImages":              s.describeImages,
		"ListImages":                  s.listImages,
		"BatchGetImage":               s.batchGetImage,
		"BatchDeleteImage":            s.batchDeleteImage,
		"PutImage":                    s.putImage,
	}
}

// signedCall reads the principal and region of a request. It requires the form of a SigV4
// signature, but does not verify the signature, because the server does not know the caller's
// secret.
func (s *Server) signedCall(r *http.Request, service string) (apiCall, error) {
	auth, ok := strings.CutPrefix(r.Header.Get("Authorization"), amzAlgorithm+" ")
	if !ok {
		return apiCall{}, refuse(http.StatusForbidden, "MissingAuthenticationTokenException", "Missing Authentication Token")
	}
	field := map[string]string{}
	for part := range strings.SplitSeq(auth, ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		field[k] = v
	}
	scope := strings.Split(field["Credential"], "/")
	if len(scope) != 5 || scope[3] != service || scope[4] != "aws4_request" || len(field["Signature"]) != 64 || field["SignedHeaders"] == "" {
		return apiCall{}, refuse(http.StatusForbidden, "IncompleteSignatureException", "Authorization header requires 'Credential', 'Signature' and 'SignedHeaders' of service %s", service)
	}
	principal, err := s.principalOf(scope[0])
	return apiCall{region: scope[2], principal: principal}, err
}

func decode[T any](c apiCall) (T, error) {
	var in T
	if err := json.Unmarshal(c.body, &in); err != nil {
		return in, exception("SerializationException", "%v", err)
	}
	return in, nil
}

// allowed returns an error if an IAM denial forbids the call for the resource.
func (s *Server) allowed(c apiCall, resource string) error {
	if s.forbids(c.principal, "ecr:"+c.op, resource) {
		return exception("AccessDeniedException", "%s", deniedText(c.principal, "ecr:"+c.op, resource))
	}
	return nil
}

// callRegistry returns the registry of a call, in the region that the call was signed for. An empty
// id means the caller's account.
func (s *Server) callRegistry(c apiCall, id string) (*registry, error) {
	g, ok := s.registries[RegistryID{orDefault(id, accountOf(c.principal, s.opts.Account)), c.region}]
	if !ok {
		return nil, exception("InvalidParameterException", "Invalid parameter at 'registryId' failed to satisfy constraint: 'no registry in region %s'", c.region)
	}
	return g, nil
}

// accountOf returns the account in an ARN, or fallback if the ARN has no account.
func accountOf(arn, fallback string) string {
	if part := strings.Split(arn, ":"); len(part) >= 6 && len(part[4]) == 12 {
		return part[4]
	}
	return fallback
}

// epoch returns a time as the JSON protocols send it: seconds with a fraction.
func epoch(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
