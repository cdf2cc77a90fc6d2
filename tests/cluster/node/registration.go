package main

import (
	"context"
	"log"
	"net"
	"runtime"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// heartbeat is well under the 50 seconds after which the node lifecycle controller gives a node up.
const heartbeat = 10 * time.Second

// keepRegistered makes the node known, served at address, and says that it is ready until ctx ends.
func (k *kubelet) keepRegistered(ctx context.Context, address net.Addr) {
	port := int32(address.(*net.TCPAddr).Port)
	for ctx.Err() == nil {
		wait := heartbeat
		if err := k.register(ctx, port); err != nil && ctx.Err() == nil {
			log.Printf("node: %v", err)
			wait = time.Second
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (k *kubelet) register(ctx context.Context, port int32) error {
	nodes := k.client.CoreV1().Nodes()
	node, err := nodes.Get(ctx, nodeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		node, err = nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName, Labels: labels()}}, metav1.CreateOptions{})
	}
	if err != nil {
		return err
	}
	node.Status = nodeStatus(port, metav1.Now())
	_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return ignoreStale(err)
}

func labels() map[string]string {
	return map[string]string{corev1.LabelHostname: nodeName, corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH}
}

func nodeStatus(port int32, now metav1.Time) corev1.NodeStatus {
	capacity := corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("8"),
		corev1.ResourceMemory: resource.MustParse("32Gi"),
		corev1.ResourcePods:   resource.MustParse("500"),
	}
	return corev1.NodeStatus{
		Capacity:        capacity,
		Allocatable:     capacity,
		Addresses:       []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: hostIP}, {Type: corev1.NodeHostName, Address: nodeName}},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: port}},
		NodeInfo: corev1.NodeSystemInfo{
			KubeletVersion:          "v1.37.2",
			OperatingSystem:         runtime.GOOS,
			Architecture:            runtime.GOARCH,
			OSImage:                 "none",
			ContainerRuntimeVersion: "none://0",
		},
		Conditions: []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: now,
		}},
	}
}
