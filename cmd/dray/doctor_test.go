package main

import (
	"cmp"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"dray/cache/meta/metatest"
	"dray/cache/s3/s3test"
	"dray/cmd/dray/doctor"
	"dray/upstream/ecrtest"
)

// doctored is what dray doctor finds with the configuration of a stack, by id.
func (s *stack) doctored(environ []string, args ...string) (code int, found map[string]doctor.Finding) {
	s.Helper()
	t := s.TB.(*testing.T)
	code, stdout, stderr := runDray(t, environ, append([]string{"doctor", "--config", s.path, "--json"}, args...)...)
	var r doctor.Report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		s.Fatalf("%d %s%s", code, stdout, stderr)
	}
	found = map[string]doctor.Finding{}
	for _, f := range r.Findings {
		if f.ID == "" || f.Category == "" || f.Text == "" || (f.Status == doctor.Failed || f.Status == doctor.Warning) && f.Hint == "" {
			s.Errorf("%+v", f)
		}
		if _, twice := found[f.ID]; twice {
			s.Errorf("two findings have the id %s", f.ID)
		}
		found[f.ID] = f
		if id := regexp.MustCompile(`^(registry|listener)\.\w+`).ReplaceAllString(f.ID, "$1.NAME"); id != "registries" && !strings.Contains(read(t, "../../docs/doctor.md"), "`"+id+"`") {
			s.Errorf("docs/doctor.md does not have %s", id)
		}
	}
	return code, found
}

// TestDoctor: what is broken is found, and nothing else. Statuses are those of the findings that
// depend on no property of the machine that runs the test.
func TestDoctor(t *testing.T) {
	clock := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		_, _ = w.Write([]byte("{}"))
	}))
	defer clock.Close()
	// regional takes the credentials of one region.
	regional := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Authorization"), "/eu-west-1/sts/") {
			_, _ = w.Write([]byte("<R><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/x</Arn></GetCallerIdentityResult></R>"))
			return
		}
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte("<ErrorResponse><Error><Code>InvalidClientTokenId</Code></Error></ErrorResponse>"))
	}))
	defer regional.Close()
	listensPlainly := httptest.NewServer(http.NotFoundHandler())
	defer listensPlainly.Close()
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer refusing.Close()
	down := deaf(t)
	listens, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listens.Close()
	fine := map[string]doctor.Status{
		"configuration.valid": doctor.OK, "disk.space": doctor.OK, "listener.main": doctor.OK, "aws.identity": doctor.OK, "machine.proxy": doctor.OK,
		"registry.ecr.reachable": doctor.OK, "registry.ecr.credentials": doctor.OK, "registry.ecr.clock": doctor.OK,
		"registry.ecr.layers": doctor.OK, "registry.ecr.push": doctor.Unknown,
		"registry.hub.reachable": doctor.OK, "registry.hub.credentials": doctor.OK, "registry.hub.clock": doctor.OK, "registry.hub.quota": doctor.OK,
	}
	for name, tc := range map[string]struct {
		edits   []string
		environ []string
		broken  func(s *stack)
		want    map[string]doctor.Status // beside what is fine
		hint    string                   // of the findings about registries
	}{
		"all is well":     {},
		"nothing listens": {edits: []string{listens.Addr().String(), down}, want: map[string]doctor.Status{"listener.main": doctor.Warning}},
		"no room":         {edits: []string{"min_free_bytes: 0", "min_free_bytes: 1000TiB"}, want: map[string]doctor.Status{"disk.space": doctor.Failed}},
		"a registry is down": {edits: []string{"http://HUB_ADDR", "http://" + down}, want: map[string]doctor.Status{
			"registry.hub.reachable": doctor.Failed, "registry.hub.credentials": doctor.Failed, "registry.hub.clock": doctor.Unknown, "registry.hub.quota": doctor.Unknown,
		}},
		"a registry without TLS": {edits: []string{"http://HUB_ADDR", "https://" + listensPlainly.Listener.Addr().String()}, want: map[string]doctor.Status{
			"registry.hub.reachable": doctor.Failed, "registry.hub.credentials": doctor.Failed, "registry.hub.clock": doctor.Unknown, "registry.hub.quota": doctor.Unknown,
		}, hint: "write http:// before the host in url, if this registry has no TLSfirst let dray reach the registry"},
		"a registry refuses the password": {edits: []string{"http://HUB_ADDR", refusing.URL}, want: map[string]doctor.Status{"registry.hub.credentials": doctor.Failed, "registry.hub.quota": doctor.Unknown},
			hint: "the password in password_file or password_env"},
		"the host of layers is down": {broken: func(s *stack) { standForLayers(s.TB, "http://"+down) },
			want: map[string]doctor.Status{"registry.ecr.layers": doctor.Failed}},
		"a registry fails": {broken: func(s *stack) {
			s.hub.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindBase}, Count: -1, Status: 503})
		}, want: map[string]doctor.Status{"registry.hub.reachable": doctor.Failed, "registry.hub.credentials": doctor.Failed}},
		"a wrong clock": {edits: []string{"http://HUB_ADDR", clock.URL}, want: map[string]doctor.Status{"registry.hub.clock": doctor.Failed, "registry.hub.quota": doctor.Unknown}},
		"AWS gives no token": {broken: func(s *stack) {
			s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{"GetAuthorizationToken"}, Count: -1, Status: 400})
		}, want: map[string]doctor.Status{"registry.ecr.credentials": doctor.Failed}, hint: "that the AWS SDK finds, and at role_arn of the upstream"},
		"AWS does not answer": {broken: func(s *stack) {
			setenv(s.TB, "AWS_ENDPOINT_URL_STS", "http://"+down)
			setenv(s.TB, "AWS_MAX_ATTEMPTS", "1")
		},
			want: map[string]doctor.Status{"aws.identity": doctor.Unknown}},
		"AWS knows nobody": {broken: func(s *stack) {
			setenv(s.TB, "AWS_ENDPOINT_URL_STS", regional.URL)
			setenv(s.TB, "AWS_REGION", "us-east-1")
		}, want: map[string]doctor.Status{"aws.identity": doctor.Failed}},
		"no region in the environment": {broken: func(s *stack) {
			setenv(s.TB, "AWS_ENDPOINT_URL_STS", regional.URL)
			setenv(s.TB, "AWS_REGION", "")
			setenv(s.TB, "AWS_DEFAULT_REGION", "")
		}},
		"Redis is down":        {edits: []string{"cache: {dir", "metadata: {url: 'redis://" + down + "'}\ncache: {dir"}, want: map[string]doctor.Status{"facts.redis": doctor.Failed}},
		"a proxy that is none": {environ: []string{"HTTPS_PROXY=proxy:3128:x"}, want: map[string]doctor.Status{"machine.proxy": doctor.Failed}},
	} {
		t.Run(name, func(t *testing.T) {
			edits := append([]string{"{name: main,", "{name: main, address: '" + listens.Addr().String() + "',"}, tc.edits...)
			if name == "nothing listens" {
				edits = []string{"{name: main,", "{name: main, address: '" + down + "',"}
			}
			dir := t.TempDir()
			s, _ := configured(t, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), dir, edits...)
			if tc.broken != nil {
				tc.broken(s)
			}
			code, found := s.doctored(tc.environ, "--admin", down)
			failures := 0
			for id, status := range fine {
				if changed, ok := tc.want[id]; ok {
					status = changed
				}
				if found[id].Status != status {
					t.Errorf("%s: %+v, want %s", id, found[id], status)
				}
			}
			if hint := found["registry.hub.reachable"].Hint + found["registry.hub.credentials"].Hint + found["registry.ecr.credentials"].Hint; !strings.Contains(hint, tc.hint) {
				t.Errorf("the hint is %q, want %q", hint, tc.hint)
			}
			for id, status := range tc.want {
				if found[id].Status != status {
					t.Errorf("%s: %+v, want %s", id, found[id], status)
				}
				if status == doctor.Failed {
					failures++
				}
			}
			if want := map[bool]int{true: exitRejected, false: exitOK}[failures > 0]; code != want {
				t.Errorf("exit code %d, want %d: %+v", code, want, found)
			}
			if f := found["dray.ready"]; f.Status != doctor.Unknown {
				t.Errorf("%+v", f)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, ".doctor-*")); len(left) > 0 {
				t.Errorf("%v is left behind", left)
			}
		})
	}
}

// TestDoctorQuota: the pulls that are left are read by a request that takes none of them.
func TestDoctorQuota(t *testing.T) {
	hub := ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub(), Hub: ecrtest.HubOptions{PullLimit: 10}})
	s := startBefore(t, ecrtest.Start(t, ecrtest.Options{}), hub, t.TempDir())
	seed(t, hub, "ratelimitpreview/test", "latest", 1000) // Docker Hub has it for this question
	for i := range 10 {
		if i == 9 {
			for range 2 {
				if _, found := s.doctored(nil); found["registry.hub.quota"].Status != doctor.OK || !strings.Contains(found["registry.hub.quota"].Text, "1 of 10 pulls in 6h0m0s") {
					t.Fatalf("%+v", found["registry.hub.quota"])
				}
			}
		}
		seed(t, hub, "library/app", strconv.Itoa(i), int64(1000+i))
		s.want(200, "GET", "/hub/v2/app/manifests/"+strconv.Itoa(i), nil)
	}
	if _, found := s.doctored(nil); found["registry.hub.quota"].Status != doctor.Warning || !strings.Contains(found["registry.hub.quota"].Text, "0 of 10 pulls") {
		t.Errorf("%+v", found["registry.hub.quota"])
	}
}

// TestDoctorPushTo: an upload is started where it was asked for, and cancelled. No repository is
// made for it.
func TestDoctorPushTo(t *testing.T) {
	for name, tc := range map[string]struct {
		repository string
		fault      *ecrtest.Fault
		id         string
		want       doctor.Status
		text       string
		starts     int64
	}{
		"allowed":         {"ecr/team/app", nil, "registry.ecr.push", doctor.OK, "was started and cancelled", 1},
		"no right":        {"ecr/team/app", &ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadStart}, Count: -1, Status: 403}, "registry.ecr.push", doctor.Failed, "could not be started", 1},
		"no repository":   {"ecr/team/none", nil, "registry.ecr.push", doctor.Failed, "team/none", 1},
		"nowhere":         {"quay.io/team/app", nil, "registries", doctor.Failed, "--push-to quay.io/team/app", 0},
		"dray's own":      {"own/team/app", nil, "registries", doctor.Failed, "dray itself is the registry of the upstream own", 0},
		"a mirror's name": {"hub/library/app", nil, "registry.ecr.push", doctor.Unknown, "was not tried", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := startStack(t, t.TempDir(), "upstreams: [ecr, hub]", "upstreams: [ecr, hub, own]", "upstreams:\n", "upstreams:\n- {name: own, kind: local, prefixes: [own]}\n")
			seed(t, s.ecr, "team/app", "v1", 1000)
			if tc.fault != nil {
				s.ecr.AddFault(*tc.fault)
			}
			s.ecr.ResetCounters()
			_, found := s.doctored(nil, "--push-to", tc.repository)
			if f := found[tc.id]; f.Status != tc.want || !strings.Contains(f.Text, tc.text) {
				t.Errorf("%+v", f)
			}
			counts := s.ecr.Counters()
			if counts[ecrtest.KindUploadStart].Requests != tc.starts || counts["CreateRepository"].Requests != 0 {
				t.Errorf("requests: %v", counts)
			}
		})
	}
}

// TestDoctorPath: the way of the layers is that of the routes of this machine.
func TestDoctorPath(t *testing.T) {
	for name, tc := range map[string]struct {
		routes, endpoints string
		status            int
		want              doctor.Status
		text              string
		region            string // of the machine; empty for that of the registry
	}{
		"an endpoint": {"<natGatewayId>nat-1</natGatewayId>", "<item><vpcEndpointId>vpce-1</vpcEndpointId><routeTableIdSet><item>rtb-1</item></routeTableIdSet></item>", 200, doctor.OK, "vpce-1 of S3, which costs nothing", ""},
		"an endpoint of others": {"<natGatewayId>nat-1</natGatewayId>", "<item><vpcEndpointId>vpce-1</vpcEndpointId><routeTableIdSet><item>rtb-2</item></routeTableIdSet></item>", 200, doctor.Warning,
			"NAT gateway nat-1", ""},
		"an interface endpoint": {"", "<item><vpcEndpointId>vpce-1</vpcEndpointId><privateDnsEnabled>true</privateDnsEnabled></item>", 200, doctor.OK, "interface endpoint vpce-1", ""},
		"an interface endpoint without its name": {"<natGatewayId>nat-1</natGatewayId>", "<item><vpcEndpointId>vpce-1</vpcEndpointId><privateDnsEnabled>false</privateDnsEnabled></item>", 200, doctor.Warning,
			"NAT gateway nat-1", ""},
		"an endpoint in another region": {"<natGatewayId>nat-1</natGatewayId>", "<item><vpcEndpointId>vpce-1</vpcEndpointId><routeTableIdSet><item>rtb-1</item></routeTableIdSet></item>", 200, doctor.Warning,
			"NAT gateway nat-1", "us-east-1"},
		"a gateway":      {"<gatewayId>igw-1</gatewayId>", "", 200, doctor.OK, "through igw-1", ""},
		"a core network": {"<coreNetworkArn>arn:aws:networkmanager::1:core-network/c</coreNetworkArn>", "", 200, doctor.OK, "core-network/c", ""},
		"no way":         {"", "", 200, doctor.Warning, "has no default route", ""},
		"no right":       {"", "", 403, doctor.Unknown, "DescribeRouteTables: UnauthorizedOperation", ""},
		"not known":      {"", "", 0, doctor.Unknown, "instance metadata", ""},
	} {
		t.Run(name, func(t *testing.T) {
			region := cmp.Or(tc.region, "eu-west-1")
			aws := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				here := map[string]string{
					"/latest/meta-data/mac": "0e:00", "/latest/meta-data/placement/region": region, "/latest/meta-data/services/domain": "amazonaws.com",
					"/latest/meta-data/network/interfaces/macs/0e:00/vpc-id": "vpc-1", "/latest/meta-data/network/interfaces/macs/0e:00/subnet-id": "subnet-1",
				}
				form := r.PostFormValue("Action") + " " + r.PostFormValue("Filter.1.Value.1")
				switch {
				case r.Method == http.MethodPut:
					w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
					_, _ = w.Write([]byte("token"))
				case r.Method == http.MethodGet:
					_, _ = w.Write([]byte(here[r.URL.Path]))
				case !strings.Contains(r.Header.Get("Authorization"), "/"+region+"/ec2/aws4_request"):
					w.WriteHeader(http.StatusUnauthorized)
				case tc.status != http.StatusOK:
					w.WriteHeader(tc.status)
					_, _ = w.Write([]byte("<Response><Errors><Error><Code>UnauthorizedOperation</Code></Error></Errors></Response>"))
				case form == "DescribeRouteTables subnet-1": // the subnet has no table of its own
					_, _ = w.Write([]byte("<R><routeTableSet/></R>"))
				case form == "DescribeRouteTables vpc-1" && r.PostFormValue("Filter.2.Name") == "association.main":
					_, _ = w.Write([]byte("<R><routeTableSet><item><routeTableId>rtb-1</routeTableId><routeSet><item><destinationCidrBlock>10.0.0.0/16</destinationCidrBlock><gatewayId>local</gatewayId></item>" +
						"<item><destinationCidrBlock>0.0.0.0/0</destinationCidrBlock>" + tc.routes + "</item></routeSet></item></routeTableSet></R>"))
				case form == "DescribeVpcEndpoints vpc-1" && r.PostFormValue("Filter.2.Value.1") == "com.amazonaws."+region+".s3":
					_, _ = w.Write([]byte("<R><vpcEndpointSet>" + tc.endpoints + "</vpcEndpointSet></R>"))
				default:
					t.Errorf("%s %s", r.Method, form)
				}
			}))
			defer aws.Close()
			s, _ := configured(t, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir())
			t.Setenv("AWS_ENDPOINT_URL_EC2", aws.URL)
			if tc.status != 0 {
				t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
				t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws.URL)
			}
			_, found := s.doctored(nil, "--timeout", "1m")
			if f := found["aws.path"]; f.Status != tc.want || !strings.Contains(f.Text, tc.text) {
				t.Errorf("%+v", f)
			}
		})
	}
}

// TestDoctorRates: the rates of an upstream are compared with the quotas of its account.
func TestDoctorRates(t *testing.T) {
	const right = "servicequotas:ListServiceQuotas"
	for name, tc := range map[string]struct {
		first, second string // the quotas on two pages
		rates         string // of the upstream
		want          doctor.Status
		text          string
	}{
		"the defaults":       {`{"QuotaName": "Images per repository", "Value": 100000}`, `{"QuotaName": "Rate of PutImage requests", "Value": 10.0}`, "", doctor.OK, "keeps to the quotas of the upstream ecr"},
		"lowered":            {``, `{"QuotaName": "Rate of PutImage requests", "Value": 5.0}`, "", doctor.Warning, "fewer requests per second than dray may send: PutImage: 5"},
		"lowered and known":  {`{"QuotaName": "Rate of PutImage requests", "Value": 5.0}`, ``, "{PutImage: 5}", doctor.OK, "keeps to"},
		"raised":             {``, `{"QuotaName": "Rate of BatchGetImage requests", "Value": 4000.0}`, "", doctor.OK, "as high as BatchGetImage: 4000"},
		"rate above default": {``, ``, "{PutImage: 20}", doctor.Warning, "PutImage: 10"},
		"no bound":           {``, ``, "{PutImage: 0}", doctor.Warning, "PutImage: 10"},
		"no right":           {right, ``, "", doctor.Unknown, "AccessDeniedException"},
	} {
		t.Run(name, func(t *testing.T) {
			aws := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var ask struct{ ServiceCode, NextToken string }
				err := json.NewDecoder(r.Body).Decode(&ask)
				switch {
				case err != nil, ask.ServiceCode != "ecr", r.Header.Get("X-Amz-Target") != "ServiceQuotasV20190624.ListServiceQuotas",
					!strings.Contains(r.Header.Get("Authorization"), "/eu-west-1/servicequotas/aws4_request"):
					t.Errorf("%v %+v %v", err, ask, r.Header)
				case tc.first == right:
					w.WriteHeader(http.StatusBadRequest)
					_, _ = w.Write([]byte(`{"__type": "AccessDeniedException", "Message": "no"}`))
				case ask.NextToken == "":
					_, _ = w.Write([]byte(`{"Quotas": [` + tc.first + `], "NextToken": "more"}`))
				default:
					_, _ = w.Write([]byte(`{"Quotas": [` + tc.second + `]}`))
				}
			}))
			defer aws.Close()
			var change []string
			if tc.rates != "" {
				change = []string{"  kind: ecr\n", "  kind: ecr\n  limits: {rates: " + tc.rates + "}\n"}
			}
			s, _ := configured(t, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(), change...)
			t.Setenv("AWS_ENDPOINT_URL_SERVICE_QUOTAS", aws.URL)
			_, found := s.doctored(nil)
			if f := found["registry.ecr.rates"]; f.Status != tc.want || !strings.Contains(f.Text, tc.text) || tc.want == doctor.Unknown && !strings.Contains(f.Hint, right) {
				t.Errorf("%+v", f)
			}
			if _, ok := found["registry.hub.rates"]; ok {
				t.Error("quotas of a registry that is not of AWS")
			}
		})
	}
}

// TestDoctorBucket: a bucket that cannot be used is a failure, and one without its settings a
// warning.
func TestDoctorBucket(t *testing.T) {
	store := s3test.New(t)
	s, _ := configured(t, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(), withBucket(store)...)
	want := func(reached, settings doctor.Status, text string) {
		t.Helper()
		_, found := s.doctored(nil)
		if found["bucket.reached"].Status != reached || found["bucket.settings"].Status != settings || !strings.Contains(found["bucket.reached"].Text+found["bucket.settings"].Text, text) {
			t.Errorf("%+v %+v", found["bucket.reached"], found["bucket.settings"])
		}
	}
	want(doctor.OK, doctor.Warning, "the lifecycle deletes objects")
	if code, _, stderr := runDray(t, nil, "setup", "bucket", "--config", s.path); code != exitOK {
		t.Fatal(stderr)
	}
	want(doctor.OK, doctor.OK, "blocks public access")
	store.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet {
			s3test.Refuse(w, http.StatusNotImplemented, "NotImplemented")
		}
		return r.Method == http.MethodGet
	})
	want(doctor.OK, doctor.Unknown, "the store does not know these settings: the lifecycle deletes")
	store.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet {
			s3test.Refuse(w, http.StatusForbidden, "AccessDenied")
		}
		return r.Method == http.MethodGet
	})
	want(doctor.OK, doctor.Unknown, "are not known")
	for status, text := range map[int]string{http.StatusForbidden: "s3:ListBucket", http.StatusNotFound: "there is no bucket shared", http.StatusMovedPermanently: "another region"} {
		store.Fault(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(status); return true })
		want(doctor.Failed, doctor.Unknown, text)
	}
}

// TestDoctorAsksARunningDray: what a running dray knows of itself is among the findings.
func TestDoctorAsksARunningDray(t *testing.T) {
	s := startStack(t, t.TempDir())
	if _, found := s.doctored(nil, "--admin", s.admin()); found["dray.ready"].Status == doctor.Unknown || found["disk.sync"].Status == doctor.Failed {
		t.Errorf("%+v", found)
	}
}

// TestDoctorRedis: a policy that drops facts is a warning, and a user who may not do what dray does
// is a failure.
func TestDoctorRedis(t *testing.T) {
	server := metatest.StartRedis(t)
	for _, policy := range []string{"", "allkeys-lru"} { // in this order: the server keeps what is set
		s, _ := configured(t, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(),
			"cache: {dir", "metadata: {url: 'redis://"+server.Addr+"'}\ncache: {dir")
		if policy != "" {
			server.Do("CONFIG", "SET", "maxmemory-policy", policy)
		}
		_, found := s.doctored(nil)
		f := found["facts.redis"]
		if policy == "" && strings.Contains(f.Text, "evicts by") || policy != "" && (f.Status != doctor.Warning || !strings.Contains(f.Text, "evicts by "+policy)) {
			t.Errorf("%q: %+v", policy, f)
		}
	}
	server.Do("ACL", "SETUSER", "reader", "on", "nopass", "~*", "+info", "+get")
	s, _ := configured(t, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(),
		"cache: {dir", "metadata: {url: 'redis://reader:any@"+server.Addr+"'}\ncache: {dir")
	_, found := s.doctored(nil)
	if f := found["facts.redis"]; f.Status != doctor.Failed || !strings.Contains(f.Text, "write a fact: NOPERM") || f.Hint == "" {
		t.Errorf("%+v", f)
	}
}

// TestDoctorOfInvalidConfiguration: an invalid configuration is the only finding.
func TestDoctorOfInvalidConfiguration(t *testing.T) {
	path := write(t, "dray.yaml", "listeners: [{nome: main}]\n")
	code, stdout, _ := runDray(t, nil, "doctor", "--config", path)
	if code != exitRejected || !strings.Contains(stdout, "× ") || !strings.Contains(stdout, "(configuration.valid)") || !strings.Contains(stdout, "1 failure, 0 warnings") {
		t.Errorf("%d %s", code, stdout)
	}
}
