package ecr

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// Quotas asks Service Quotas how many requests per second the account of dray's credentials may
// send to the private registries in the region of r. The keys of the result are names of quotas, in
// the form that the rates of [Private] have. If Service Quotas has no value of a quota for this
// account, the quota is missing from the result, and its default applies. Quotas needs the right
// servicequotas:ListServiceQuotas. endpoint is the URL of Service Quotas; empty means the URL of
// the region.
func (r *Registry) Quotas(ctx context.Context, endpoint string) (map[string]float64, error) {
	domain := ".amazonaws.com"
	if strings.HasPrefix(r.Host.Region, "cn-") {
		domain += ".cn"
	}
	endpoint = cmp.Or(endpoint, "https://servicequotas."+r.Host.Region+domain+"/")
	all := map[string]float64{}
	for next := ""; ; {
		page, err := r.quotas(ctx, endpoint, next)
		if err != nil {
			return nil, fmt.Errorf("ListServiceQuotas: %w", err)
		}
		for _, q := range page.Quotas {
			// The page "Amazon ECR service quotas" shows the form of the names: "Rate of X requests".
			name, ok := strings.CutPrefix(q.QuotaName, "Rate of ")
			if name, is := strings.CutSuffix(name, " requests"); ok && is {
				all[name] = q.Value
			}
		}
		if next = page.NextToken; next == "" {
			return all, nil
		}
	}
}

// quotaPage is an answer to ListServiceQuotas (Service Quotas API reference).
type quotaPage struct {
	Quotas []struct {
		QuotaName string
		Value     float64
	}
	NextToken string
}

// quotas asks for one page of the quotas. pageToken is the NextToken of the previous page.
func (r *Registry) quotas(ctx context.Context, endpoint, pageToken string) (page quotaPage, err error) {
	ask := map[string]string{"ServiceCode": "ecr"}
	if pageToken != "" {
		ask["NextToken"] = pageToken
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return page, err
	}
	text, resp, err := signed(ctx, r.cfg, "servicequotas", r.Host.Region, endpoint, body, http.Header{
		"Content-Type": {"application/x-amz-json-1.1"}, "X-Amz-Target": {"ServiceQuotasV20190624.ListServiceQuotas"},
	})
	if err != nil {
		return page, err
	}
	if resp.StatusCode != http.StatusOK {
		var refused struct {
			Type string `json:"__type"`
		}
		_ = json.Unmarshal(text, &refused) // without a type, the status is all that is known
		return page, fmt.Errorf("the Service Quotas API answers %s %s", resp.Status, refused.Type)
	}
	return page, json.Unmarshal(text, &page)
}
