//! Links: what things are called, and how requests name them.

use serde::{Deserialize, Serialize};

use super::answer::Refusal;

/// What all links begin with.
const ROOT: &str = "https://www.googleapis.com/compute/v1";

/// Where in a project something is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The project itself.
    Project,
    /// Everywhere.
    Global,
    /// In a zone.
    Zone(String),
    /// In a region.
    Region(String),
    /// In all zones and regions together.
    Aggregated,
}

impl Scope {
    /// A zone.
    pub fn zone(name: &str) -> Self {
        Self::Zone(name.to_owned())
    }

    /// A region.
    pub fn region(name: &str) -> Self {
        Self::Region(name.to_owned())
    }

    /// As it stands in a path, with what divides it from what follows.
    fn path(&self) -> String {
        match self {
            Self::Project => String::new(),
            Self::Global => "global/".to_owned(),
            Self::Zone(zone) => format!("zones/{zone}/"),
            Self::Region(region) => format!("regions/{region}/"),
            Self::Aggregated => "aggregated/".to_owned(),
        }
    }
}

/// The region of a zone: its name without what follows the last dash.
pub fn region_of(zone: &str) -> &str {
    zone.rsplit_once('-').map_or(zone, |(region, _)| region)
}

/// Makes the links of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// The project.
    pub project: String,
}

impl Links {
    /// The path of something, which begins with `projects/`. Without a name, that of the collection.
    pub fn path(&self, scope: &Scope, collection: &str, name: &str) -> String {
        let path = format!("projects/{}/{}{collection}/{name}", self.project, scope.path());
        path.trim_end_matches('/').to_owned()
    }

    /// The whole link of something.
    pub fn link(&self, scope: &Scope, collection: &str, name: &str) -> String {
        format!("{ROOT}/{}", self.path(scope, collection, name))
    }

    /// The link of a zone.
    pub fn zone(&self, zone: &str) -> String {
        self.link(&Scope::Project, "zones", zone)
    }

    /// The link of a region.
    pub fn region(&self, region: &str) -> String {
        self.link(&Scope::Project, "regions", region)
    }

    /// The whole link of what a text names: a link already, or a path from `projects/` or from the
    /// scope on. Anything else stays as it is.
    pub fn whole(&self, text: &str) -> String {
        match text.split('/').next() {
            Some("projects") => format!("{ROOT}/{text}"),
            Some("global" | "zones" | "regions") => {
                format!("{ROOT}/projects/{}/{text}", self.project)
            }
            _ => text.to_owned(),
        }
    }

    /// Reads how a request names something of a collection: as a link of any host and version,
    /// from `projects/` on, or from the scope on.
    pub fn reference(&self, field: &str, text: &str, collection: &str) -> Result<Named, Refusal> {
        let wrong = |why: &str| Refusal::invalid(field, text, why);
        let path = match text.split_once("://") {
            Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
            None => text,
        };
        let mut segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if let ["compute", _, rest @ ..] = segments.as_slice() {
            segments = rest.to_vec();
        }
        if let ["projects", project, rest @ ..] = segments.as_slice() {
            if *project != self.project {
                return Err(Refusal::not_found(path.trim_start_matches("compute/v1/")));
            }
            segments = rest.to_vec();
        }
        let (scope, rest) = match segments.as_slice() {
            ["global", rest @ ..] => (Scope::Global, rest),
            ["zones", zone, rest @ ..] => (Scope::zone(zone), rest),
            ["regions", region, rest @ ..] => (Scope::region(region), rest),
            _ => {
                return Err(wrong(
                    "The URL is malformed: write it like projects/PROJECT/zones/ZONE/instances/NAME.",
                ));
            }
        };
        match rest {
            [kind, name] if *kind == collection => {
                Ok(Named { scope, collection: collection.to_owned(), name: (*name).to_owned() })
            }
            _ => Err(wrong(&format!("The URL names nothing among {collection}."))),
        }
    }
}

/// Something that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Where it is.
    pub scope: Scope,
    /// What it is among.
    pub collection: String,
    /// Its name or id.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_may_be_named_in_every_form() {
        let links = Links { project: "p".to_owned() };
        let web = Named {
            scope: Scope::zone("hall-a"),
            collection: "instances".to_owned(),
            name: "web-1".to_owned(),
        };
        let tail = "projects/p/zones/hall-a/instances/web-1";
        for text in [
            format!("https://www.googleapis.com/compute/v1/{tail}"),
            format!("https://compute.googleapis.com/compute/beta/{tail}"),
            format!("http://127.0.0.1:8080/compute/v1/{tail}"),
            tail.to_owned(),
            "zones/hall-a/instances/web-1".to_owned(),
        ] {
            assert_eq!(
                links.reference("sourceInstance", &text, "instances").unwrap(),
                web,
                "{text}"
            );
        }
        for (text, status) in [
            ("web-1", 400),
            ("zones/hall-a/disks/web-1", 400),
            ("projects/other/zones/hall-a/instances/web-1", 404),
            ("", 400),
        ] {
            let refusal = links.reference("sourceInstance", text, "instances").unwrap_err();
            assert_eq!(refusal.status, status, "{text}");
        }
        assert_eq!(links.link(&web.scope, &web.collection, &web.name), format!("{ROOT}/{tail}"));
    }

    #[test]
    fn a_zone_lies_in_its_region() {
        assert_eq!(region_of("us-central1-a"), "us-central1");
        assert_eq!(region_of("hall"), "hall");
    }
}
