// Command chartcheck decodes Kubernetes objects strictly, sets defaults and validates them by the functions that
// kube-apiserver calls for a create: what a schema cannot say (names of ports, probes, selectors, quantities).
// infra/helm/validation/build makes it; it is given files, and says what is refused.
package main

import (
	"bytes"
	"fmt"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsv "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	hpav "k8s.io/kubernetes/pkg/apis/autoscaling/validation"
	"k8s.io/kubernetes/pkg/apis/batch"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	batchv "k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corev "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	netv "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	policyv "k8s.io/kubernetes/pkg/apis/policy/validation"
)

func main() {
	strict := serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	internal := legacyscheme.Codecs.UniversalDecoder()
	bad, good, skipped := 0, map[string]int{}, map[string]int{}
	for _, file := range os.Args[1:] {
		data, err := os.ReadFile(file)
		if err != nil {
			panic(err)
		}
		for _, doc := range bytes.Split(append([]byte("\n"), data...), []byte("\n---\n")) {
			var meta metav1.PartialObjectMetadata
			if yaml.Unmarshal(doc, &meta) != nil || meta.Kind == "" {
				continue
			}
			if !legacyscheme.Scheme.IsGroupRegistered(meta.GroupVersionKind().Group) {
				skipped[meta.Kind]++
				continue
			}
			if _, _, err := strict.Decode(doc, nil, nil); err != nil {
				bad++
				fmt.Println(file, meta.Kind, meta.Name, "strict:", err)
				continue
			}
			object, _, err := internal.Decode(doc, nil, nil)
			if err != nil {
				bad++
				fmt.Println(file, meta.Kind, meta.Name, err)
				continue
			}
			var errs field.ErrorList
			switch one := object.(type) {
			case *apps.Deployment:
				errs = appsv.ValidateDeployment(one, podutil.GetValidationOptionsFromPodTemplate(&one.Spec.Template, nil))
			case *apps.StatefulSet:
				errs = appsv.ValidateStatefulSet(one, podutil.GetValidationOptionsFromPodTemplate(&one.Spec.Template, nil))
			case *batch.Job:
				// what the strategy sets before it validates
				one.UID = "12345678-1234-1234-1234-123456789012"
				labels := map[string]string{"batch.kubernetes.io/job-name": one.Name, "batch.kubernetes.io/controller-uid": string(one.UID),
					"job-name": one.Name, "controller-uid": string(one.UID)}
				for k, v := range labels {
					one.Spec.Template.Labels[k] = v
				}
				one.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"batch.kubernetes.io/controller-uid": string(one.UID)}}
				errs = batchv.ValidateJob(one, batchv.JobValidationOptions{RequirePrefixedLabels: true,
					PodValidationOptions: podutil.GetValidationOptionsFromPodTemplate(&one.Spec.Template, nil)})
			case *core.Service:
				// what the registry normalises before it validates
				if one.Spec.ClusterIP != "" {
					one.Spec.ClusterIPs = []string{one.Spec.ClusterIP}
				}
				errs = corev.ValidateServiceCreate(one)
			case *core.ConfigMap:
				errs = corev.ValidateConfigMap(one)
			case *core.ServiceAccount:
				errs = corev.ValidateServiceAccount(one)
			case *policy.PodDisruptionBudget:
				errs = policyv.ValidatePodDisruptionBudget(one, policyv.PodDisruptionBudgetValidationOptions{})
			case *autoscaling.HorizontalPodAutoscaler:
				errs = hpav.ValidateHorizontalPodAutoscaler(one, hpav.HorizontalPodAutoscalerSpecValidationOptions{})
			case *networking.NetworkPolicy:
				errs = netv.ValidateNetworkPolicy(one, netv.NetworkPolicyValidationOptions{})
			case *networking.Ingress:
				errs = netv.ValidateIngressCreate(one)
			default:
				errs = field.ErrorList{field.InternalError(nil, fmt.Errorf("no validation for %T", one))}
			}
			if len(errs) > 0 {
				bad++
				fmt.Println(file, meta.Kind, meta.Name, errs.ToAggregate())
			} else {
				good[meta.Kind]++
			}
		}
	}
	fmt.Println("valid:", good, "not of Kubernetes:", skipped, "refused:", bad)
	if bad > 0 {
		os.Exit(1)
	}
}
