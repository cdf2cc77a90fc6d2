package main

import (
	"context"
	"log"
	"path/filepath"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

const (
	nodeName = "node-1"
	workers  = 4
)

type kubelet struct {
	client kubernetes.Interface
	root   string
	pods   cache.Store
	queue  workqueue.TypedRateLimitingInterface[string]

	mu      sync.Mutex
	running map[string]*sandbox // by namespace/name
}

// sandbox is what runs for one pod.
type sandbox struct {
	uid        types.UID
	ctx        context.Context
	stop       context.CancelFunc
	containers map[string]*container
}

func newKubelet(client kubernetes.Interface, root string) *kubelet {
	return &kubelet{
		client:  client,
		root:    root,
		queue:   workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]()),
		running: map[string]*sandbox{},
	}
}

// followPods brings every pod to what its spec asks, until ctx ends.
func (k *kubelet) followPods(ctx context.Context) {
	factory := informers.NewSharedInformerFactory(k.client, 0)
	informer := factory.Core().V1().Pods().Informer()
	k.pods = informer.GetStore()
	enqueue := func(object any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object); err == nil {
			k.queue.Add(key)
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    enqueue,
		UpdateFunc: func(_, object any) { enqueue(object) },
		DeleteFunc: enqueue,
	})
	exitOn(err)
	factory.Start(ctx.Done())
	for range workers {
		go k.work(ctx)
	}
	<-ctx.Done()
	k.queue.ShutDown()
}

func (k *kubelet) work(ctx context.Context) {
	for {
		key, shutdown := k.queue.Get()
		if shutdown {
			return
		}
		if err := k.sync(ctx, key); err != nil && ctx.Err() == nil {
			log.Printf("pod %s: %v", key, err)
			k.queue.AddRateLimited(key)
		} else {
			k.queue.Forget(key)
		}
		k.queue.Done(key)
	}
}

// sync does the next step for one pod; what it does leads to an event, and so to the step after it.
func (k *kubelet) sync(ctx context.Context, key string) error {
	object, exists, err := k.pods.GetByKey(key)
	if err != nil {
		return err
	}
	if !exists {
		k.stop(key)
		return nil
	}
	pod := object.(*corev1.Pod)
	switch {
	case pod.Spec.NodeName == "" && pod.DeletionTimestamp == nil:
		return k.bind(ctx, pod)
	case pod.Spec.NodeName != nodeName:
		return nil
	case pod.DeletionTimestamp != nil:
		k.stop(key)
		return k.remove(ctx, pod)
	default:
		return k.report(ctx, pod, k.ensureRunning(ctx, key, pod))
	}
}

func (k *kubelet) bind(ctx context.Context, pod *corev1.Pod) error {
	return ignoreStale(k.client.CoreV1().Pods(pod.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: nodeName},
	}, metav1.CreateOptions{}))
}

func (k *kubelet) remove(ctx context.Context, pod *corev1.Pod) error {
	return ignoreStale(k.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: new(int64),
		Preconditions:      &metav1.Preconditions{UID: &pod.UID},
	}))
}

func (k *kubelet) report(ctx context.Context, pod *corev1.Pod, containers map[string]*container) error {
	status := podStatus(pod, containers, metav1.Now().Rfc3339Copy())
	if equality.Semantic.DeepEqual(pod.Status, status) {
		return nil
	}
	pod = pod.DeepCopy()
	pod.Status = status
	_, err := k.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return ignoreStale(err)
}

// ignoreStale drops the errors of a pod that has changed since; the change brings its own event.
func ignoreStale(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// ensureRunning starts those containers of the pod that were not started yet, and returns all of them.
func (k *kubelet) ensureRunning(ctx context.Context, key string, pod *corev1.Pod) map[string]*container {
	k.mu.Lock()
	defer k.mu.Unlock()
	if old := k.running[key]; old != nil && old.uid != pod.UID {
		old.stop()
		delete(k.running, key)
	}
	box := k.running[key]
	if box == nil {
		box = &sandbox{uid: pod.UID, containers: map[string]*container{}}
		box.ctx, box.stop = context.WithCancel(ctx)
		k.running[key] = box
	}
	for _, spec := range containerSpecs(pod) {
		if box.containers[spec.Name] == nil {
			folder := filepath.Join(k.root, pod.Namespace, pod.Name, spec.Name)
			box.containers[spec.Name] = startContainer(box.ctx, pod, spec, folder, func() { k.queue.Add(key) })
		}
	}
	return box.containers
}

func (k *kubelet) stop(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if box := k.running[key]; box != nil {
		box.stop()
		delete(k.running, key)
	}
}

func containerSpecs(pod *corev1.Pod) []corev1.Container {
	specs := slices.Clone(pod.Spec.Containers)
	for _, ephemeral := range pod.Spec.EphemeralContainers {
		specs = append(specs, corev1.Container(ephemeral.EphemeralContainerCommon))
	}
	return specs
}

// find returns a container that was started, or nil.
func (k *kubelet) find(namespace, pod, name string) *container {
	k.mu.Lock()
	defer k.mu.Unlock()
	if box := k.running[namespace+"/"+pod]; box != nil {
		return box.containers[name]
	}
	return nil
}
