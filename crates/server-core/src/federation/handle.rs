//! Between the API and who runs the schedule.

use std::sync::Arc;

use steeple_spiffe::TrustDomain;
use tokio::sync::{mpsc, oneshot, watch};

use super::RelationshipState;

/// Orders that wait at most; more callers wait for a place.
const QUEUE: usize = 64;

type States = Arc<Vec<(TrustDomain, RelationshipState)>>;

/// How a refresh that was ordered went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refreshed {
    Done,
    /// There is no relationship with the trust domain.
    Unmanaged,
    /// Why not.
    Failed(String),
}

/// What the API holds. Clones are the same.
#[derive(Clone, Debug)]
pub struct Federation {
    orders: mpsc::Sender<Order>,
    states: watch::Receiver<States>,
}

/// "Refresh now."
#[derive(Debug)]
pub struct Order {
    pub trust_domain: TrustDomain,
    pub reply: oneshot::Sender<Refreshed>,
}

/// The other end.
#[derive(Debug)]
pub struct Orders {
    orders: mpsc::Receiver<Order>,
    states: watch::Sender<States>,
}

impl Federation {
    pub fn new() -> (Self, Orders) {
        let (sender, orders) = mpsc::channel(QUEUE);
        let (publisher, states) = watch::channel(States::default());
        (Self { orders: sender, states }, Orders { orders, states: publisher })
    }

    /// Fetches the trust domain's bundle now and says how that went.
    pub async fn refresh(&self, trust_domain: TrustDomain) -> Refreshed {
        let stopped = || Refreshed::Failed("the server is stopping".to_owned());
        let (reply, answer) = oneshot::channel();
        if self.orders.send(Order { trust_domain, reply }).await.is_err() {
            return stopped();
        }
        answer.await.unwrap_or_else(|_| stopped())
    }

    /// Every relationship, by trust domain.
    pub fn states(&self) -> States {
        self.states.borrow().clone()
    }
}

impl Orders {
    /// The next order; waits for ever when nobody can order any more.
    pub async fn next(&mut self) -> Order {
        match self.orders.recv().await {
            Some(order) => order,
            None => std::future::pending().await,
        }
    }

    pub fn publish(&self, states: Vec<(TrustDomain, RelationshipState)>) {
        self.states.send_replace(Arc::new(states));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_is_answered() {
        let (federation, mut orders) = Federation::new();
        let td = TrustDomain::new("other.org").unwrap();
        let runs = async {
            let order = orders.next().await;
            assert_eq!(order.trust_domain, td);
            order.reply.send(Refreshed::Unmanaged).unwrap();
            orders.publish(vec![(td.clone(), RelationshipState::default())]);
        };
        let (refreshed, ()) = tokio::join!(federation.refresh(td.clone()), runs);
        assert_eq!((refreshed, federation.states().len()), (Refreshed::Unmanaged, 1));
        drop(orders);
        assert!(matches!(federation.refresh(td).await, Refreshed::Failed(_)));
    }
}
