package main

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const hostIP = "127.0.0.1"

// podStatus is the status that a kubelet would report. Init containers are taken to have succeeded.
func podStatus(pod *corev1.Pod, containers map[string]*container, now metav1.Time) corev1.PodStatus {
	status := *pod.Status.DeepCopy()
	if status.StartTime == nil {
		status.StartTime = &now
	}
	status.HostIP, status.PodIP = hostIP, hostIP
	status.HostIPs, status.PodIPs = []corev1.HostIP{{IP: hostIP}}, []corev1.PodIP{{IP: hostIP}}
	status.InitContainerStatuses = initialized(pod, *status.StartTime)
	status.ContainerStatuses, status.EphemeralContainerStatuses = nil, nil
	for _, spec := range pod.Spec.Containers {
		status.ContainerStatuses = append(status.ContainerStatuses, containerStatus(spec, containers[spec.Name].state()))
	}
	for _, ephemeral := range pod.Spec.EphemeralContainers {
		spec := corev1.Container(ephemeral.EphemeralContainerCommon)
		status.EphemeralContainerStatuses = append(status.EphemeralContainerStatuses, containerStatus(spec, containers[spec.Name].state()))
	}
	status.Phase = phase(pod.Spec.RestartPolicy, status.ContainerStatuses)
	status.Conditions = conditions(pod.Status.Conditions, isReady(status.ContainerStatuses), now)
	return status
}

func containerStatus(spec corev1.Container, state corev1.ContainerState) corev1.ContainerStatus {
	isRunning := state.Running != nil
	return corev1.ContainerStatus{
		Name: spec.Name, Image: spec.Image, ImageID: spec.Image, State: state, Ready: isRunning, Started: &isRunning,
	}
}

func initialized(pod *corev1.Pod, at metav1.Time) (statuses []corev1.ContainerStatus) {
	for _, spec := range pod.Spec.InitContainers {
		ended := &corev1.ContainerStateTerminated{Reason: "Completed", StartedAt: at, FinishedAt: at}
		status := containerStatus(spec, corev1.ContainerState{Terminated: ended})
		status.Ready = true
		statuses = append(statuses, status)
	}
	return statuses
}

// phase follows the rules of the pod lifecycle, except that nothing is restarted: a container that has ended
// stays as it is, and only RestartPolicy Never or OnFailure lets the pod end with it.
func phase(policy corev1.RestartPolicy, statuses []corev1.ContainerStatus) corev1.PodPhase {
	result := corev1.PodSucceeded
	for _, status := range statuses {
		if status.State.Running != nil || policy == corev1.RestartPolicyAlways {
			return corev1.PodRunning
		}
		if status.State.Terminated.ExitCode != 0 {
			result = corev1.PodFailed
		}
	}
	return result
}

func isReady(statuses []corev1.ContainerStatus) corev1.ConditionStatus {
	for _, status := range statuses {
		if !status.Ready {
			return corev1.ConditionFalse
		}
	}
	return corev1.ConditionTrue
}

// conditions keeps the time of what has not changed, so that the same state is the same status.
func conditions(old []corev1.PodCondition, ready corev1.ConditionStatus, now metav1.Time) []corev1.PodCondition {
	current := []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
		{Type: corev1.PodInitialized, Status: corev1.ConditionTrue},
		{Type: corev1.ContainersReady, Status: ready},
		{Type: corev1.PodReady, Status: ready},
	}
	for i := range current {
		current[i].LastTransitionTime = now
		for _, before := range old {
			if before.Type == current[i].Type && before.Status == current[i].Status {
				current[i].LastTransitionTime = before.LastTransitionTime
			}
		}
	}
	return current
}
